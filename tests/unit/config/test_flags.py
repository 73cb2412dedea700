"""Command lines: what is read, and the one line that answers what cannot be."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Annotated

import pytest

from sst2_ray.config.fields import AlsoPositional, Folder, OldName, Positional, Positive
from sst2_ray.config.flags import parse, run_main, take
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InfeasibleError, InputError, RunFailedError, StoppedError


def read(*argv: str, **options) -> TrainConfig:
    return parse(TrainConfig, argv, prog="job", **options)


def refusal(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        read(*argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- reading


def test_no_flag_gives_the_default():
    assert read() == TrainConfig()
    assert read(default=TrainConfig(seed=3)).seed == 3


def test_flags_are_laid_over_the_default():
    config = read("--epochs", "5", "--learning-rate=3e-5", default=TrainConfig(seed=3, epochs=9))
    assert (config.epochs, config.learning_rate, config.seed) == (5, 3e-5, 3)


def test_switches_can_be_turned_on_and_off():
    assert read("--pad-to-max-length").pad_to_max_length
    assert not read("--no-pad-to-max-length", default=TrainConfig(pad_to_max_length=True)).pad_to_max_length


def test_underscores_are_taken_for_dashes():
    assert read("--batch_size", "8").batch_size == 8


def test_what_was_set_can_be_left_open_again():
    assert read("--num-workers", "None", default=TrainConfig(num_workers=2)).num_workers is None


def test_help_lists_every_field_and_ends_with_0(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "--learning-rate" in printed
    assert "Global batch size in examples" in printed


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Do something."""

    place: Positional[str]
    """Place."""
    folder: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder."""
    out: Annotated[Folder, OldName("export")] = "here"
    """Target."""
    words: tuple[str, ...] = ()
    """Words."""
    use_gpu: bool | None = None
    """GPU."""
    count: Positive[int] = 1
    """Count."""


def plain(*argv: str) -> Plain:
    return parse(Plain, argv, prog="job")


def test_words_without_a_flag_are_taken_in_order():
    assert plain("a", "b") == Plain(place="a", folder="b")
    assert plain("a", "--folder", "c") == Plain(place="a", folder="c")
    with pytest.raises(InputError, match=r"b: stands alone, behind no flag"):
        plain("a", "--folder", "c", "b")
    with pytest.raises(InputError, match="PLACE: must be given"):
        plain()


def test_a_former_name_of_a_flag_is_still_taken():
    assert plain("a", "--export", "x").out == "x"


def test_a_flag_of_several_values_takes_the_words_up_to_the_next_flag():
    assert plain("a", "--words", "-1", "b", "--count", "2") == Plain(place="a", words=("-1", "b"), count=2)
    assert plain("a", "--words").words == ()


@pytest.mark.parametrize(
    ("argv", "value"), [((), None), (("--use-gpu",), True), (("--no-use-gpu",), False), (("--use-gpu", "none"), None)]
)
def test_a_switch_of_three_states(argv, value):
    assert plain("a", *argv).use_gpu is value


def test_the_rule_of_a_flag_is_checked_for_every_command():
    with pytest.raises(InputError, match="--count 0: must be a finite number above 0"):
        plain("a", "--count", "0")


# ---- refusing


def test_an_unknown_flag_is_answered_with_the_nearest_one():
    assert "unknown flag --learning-rat; did you mean --learning-rate" in refusal("--learning-rat", "1")
    assert "unknown flag --no-epoch" in refusal("--no-epoch")
    assert "see job --help" in refusal("--zzz")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--lr", "--learning-rate"), ("--bs", "--batch-size"), ("--num-epochs", "--epochs"), ("--output-dir", "--storage-path"),
        ("--max_seq_length", "--max-length"), ("--model_name_or_path", "--model"), ("--gpus", "--num-workers"),
    ],
)  # fmt: skip
def test_the_names_of_other_tools_are_answered_with_ours(word, meant):
    assert refusal(word, "1").endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("argv", [("--epochs", "many"), ("--epochs", "1.5"), ("--epochs",), ("stray",)])
def test_a_command_line_that_cannot_be_read_is_answered_in_one_line(argv):
    assert "(see job --help)" in refusal(*argv)


def test_the_line_names_the_flag_and_the_value():
    line = refusal("--epochs", "many")
    assert "--epochs" in line
    assert "many" in line


def test_a_value_outside_its_choices_is_answered_with_the_choices():
    line = refusal("--precision", "fp16")
    assert all(word in line for word in ("--precision", "fp16", "bf16"))


def test_what_the_config_refuses_passes_through():
    assert refusal("--learning-rate", "nan").startswith("--learning-rate nan: must be a finite number above 0")
    assert refusal("--learning-rate", "-1").startswith("--learning-rate -1.0: must be")


# ---- flags that decide how the rest is read


@pytest.mark.parametrize("argv", [["--a", "1", "--preset", "x", "b"], ["--a", "1", "--preset=x", "b"]])
def test_a_flag_is_taken_out_of_the_words(argv):
    assert take(argv, "--preset") == ("x", ["--a", "1", "b"])


def test_the_last_occurrence_counts():
    assert take(["--preset", "x", "--preset", "y"], "--preset") == ("y", [])


def test_a_flag_that_is_not_there_is_none():
    assert take(["--preset-of-mine"], "--preset") == (None, ["--preset-of-mine"])


def test_a_flag_without_its_value_is_refused():
    with pytest.raises(InputError, match="--preset: a value must follow"):
        take(["--preset"], "--preset")


# ---- exit codes


@pytest.mark.parametrize(
    ("error", "code"), [(InputError, 2), (InfeasibleError, 3), (RunFailedError, 4), (StoppedError, 5)]
)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(capsys, error, code):
    def main(_):
        raise error("what, why, remedy")

    assert run_main(main, []) == code
    assert capsys.readouterr() == ("", "error: what, why, remedy\n")


def test_a_main_s_own_code_is_passed_on():
    assert run_main(lambda argv: len(argv), ["a", "b"]) == 2


def test_an_interrupt_is_a_stop(capsys):
    def main(_):
        raise KeyboardInterrupt

    assert run_main(main, []) == 5
    assert capsys.readouterr().err == "stopped\n"


def test_an_object_store_that_does_not_answer_is_one_line(capsys):
    def main(_):
        raise OSError("When reading information for key 'runs': AWS Error NETWORK_CONNECTION\nand more")

    assert run_main(main, []) == 4
    assert capsys.readouterr().err == "error: When reading information for key 'runs': AWS Error NETWORK_CONNECTION\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EAGAIN])
def test_a_limit_of_the_machine_is_one_line_and_a_failure(capsys, number):
    def main(_):
        raise OSError(number, "no more", "a/file")

    assert run_main(main, []) == 4
    assert capsys.readouterr() == ("", f"error: [Errno {number}] no more: 'a/file'\n")


def test_any_other_error_keeps_its_traceback():
    def main(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_main(main, [])
