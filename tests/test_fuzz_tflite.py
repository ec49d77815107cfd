"""A short campaign of `fuzz_tflite.py`. `make fuzz` runs the long one."""

import fuzz_tflite

FILES = 60


def test_damaged_files_are_converted_or_refused() -> None:
    results = fuzz_tflite.FUZZ.campaign(seed=2, files=FILES, jobs=1)
    assert [result for result in results if result["outcome"] == "found"] == []
    assert {result["outcome"] for result in results} == {"refused", "converted"} and len(results) == FILES


def test_a_file_is_made_by_seed_and_number() -> None:
    made = [fuzz_tflite.make_case(3, index)[1] for index in range(20)]
    assert made == [fuzz_tflite.make_case(3, index)[1] for index in range(20)]
    assert len(set(made)) == 20 and made[0] != fuzz_tflite.make_case(4, 0)[1]
