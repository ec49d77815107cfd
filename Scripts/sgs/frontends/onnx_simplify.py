"""The child process that runs onnxsim: `python -m sgs.frontends.onnx_simplify before.onnx after.onnx`."""

import sys

import onnx
import onnxsim


def main() -> None:
    before, after = sys.argv[1:]
    model, _ = onnxsim.simplify(onnx.load_model(before), check_n=0)
    onnx.save_model(model, after)


if __name__ == "__main__":
    main()
