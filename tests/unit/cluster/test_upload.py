from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.cluster.submit import upload as module
from sst2_ray.cluster.submit.client import submission_id
from sst2_ray.cluster.submit.command import _variables, split_command
from sst2_ray.cluster.submit.upload import check_upload, list_upload
from sst2_ray.errors import InputError
from tests.support.cluster_files import REPOSITORY


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/train.py").write_text("print('hello')\n")
    (tmp_path / "README.md").write_text("x" * 5000)
    return tmp_path


def names(folder: Path, *exclude: str) -> list[str]:
    return [file.path for file in list_upload(folder, exclude).files]


def test_the_listing_names_every_file_and_the_largest_first(project: Path) -> None:
    upload = list_upload(project)
    assert [file.path for file in upload.files] == ["README.md", "jobs/train.py"]
    assert [file.path for file in upload.largest(1)] == ["README.md"]
    assert upload.total_bytes == 5015


def test_ignore_files_and_excludes_are_honoured_as_ray_honours_them(project: Path) -> None:
    (project / ".gitignore").write_text("*.log\n")
    (project / ".rayignore").write_text("data/\n")
    (project / "data").mkdir()
    for name in ("a.log", "data/rows.csv", "notes.txt"):
        (project / name).write_text("x")
    assert names(project, "notes.txt") == [".gitignore", ".rayignore", "README.md", "jobs/train.py"]


def test_results_and_environments_are_never_uploaded(project: Path) -> None:
    for name in ("runs/x/model.safetensors", ".venv/bin/python", ".git/config", "jobs/__pycache__/a.pyc"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    assert names(project) == ["README.md", "jobs/train.py"]


@pytest.mark.parametrize(
    "name", [".env", ".env.local", "key.pem", "id_ed25519", "auth_token", "my-service-account.json", ".netrc"]
)
def test_a_file_that_is_named_like_a_secret_is_refused(project: Path, name: str) -> None:
    (project / name).write_text("x")
    with pytest.raises(InputError, match=f"secrets: {name}"):
        check_upload(list_upload(project))


@pytest.mark.parametrize(
    "content",
    ["-----BEGIN " + "RSA PRIVATE KEY-----", "key = 'AKIA" + "Q" * 16 + "'", "hf_" + "a" * 34, "ghp_" + "a" * 36],
)
def test_a_file_that_holds_a_secret_is_refused_and_the_secret_not_repeated(project: Path, content: str) -> None:
    (project / "notes.txt").write_text(f"first line\n{content}\n")
    with pytest.raises(InputError) as refused:
        check_upload(list_upload(project))
    assert "notes.txt" in str(refused.value) and content not in str(refused.value)


def test_an_example_of_an_environment_file_is_not_a_secret(project: Path) -> None:
    (project / ".env.example").write_text("TOKEN=")
    check_upload(list_upload(project))


def test_an_upload_above_the_servers_limit_is_refused_with_the_largest_files(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UPLOAD_BYTES", 4000)
    with pytest.raises(InputError, match=r"README.md \(4.9 KiB\)"):
        check_upload(list_upload(project))


def test_the_projects_own_repository_can_be_uploaded() -> None:
    upload = list_upload(REPOSITORY)
    check_upload(upload)
    assert "jobs/train.py" in {file.path for file in upload.files}


def test_the_same_content_gives_the_same_submission_id_wherever_and_whenever(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for file in list_upload(project).files:
        (other / file.path).parent.mkdir(exist_ok=True)
        (other / file.path).write_bytes((project / file.path).read_bytes())
    assert submission_id(list_upload(project), ["a"], {}, "ann-1") == submission_id(
        list_upload(other), ["a"], {}, "ann-1"
    )


def test_other_content_command_or_variables_give_another_submission_id(project: Path) -> None:
    before = list_upload(project)
    ids = {
        submission_id(before, ["a"], {}, "ann-1"),
        submission_id(before, ["b"], {}, "ann-1"),
        submission_id(before, ["a"], {"X": "1"}, "ann-1"),
    }
    (project / "README.md").write_text("y" * 5000)
    assert len(ids | {submission_id(list_upload(project), ["a"], {}, "ann-1")}) == 4


def test_only_the_first_double_dash_belongs_to_submit() -> None:
    assert split_command(["f.yaml", "--again", "--", "python", "x.py", "--", "y"]) == (
        ["f.yaml", "--again"],
        ["python", "x.py", "--", "y"],
    )


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"])
def test_a_secret_in_a_jobs_variable_is_refused_without_its_value(name: str) -> None:
    with pytest.raises(InputError) as refused:
        _variables((f"{name}=hunter2",))
    assert name in str(refused.value) and "hunter2" not in str(refused.value)


def test_variables_that_are_no_secrets_pass() -> None:
    assert _variables(("HF_HUB_OFFLINE=1", "NCCL_DEBUG=a=b")) == {"HF_HUB_OFFLINE": "1", "NCCL_DEBUG": "a=b"}
