from __future__ import annotations

import contextlib
import os
import socket
import time
import zipfile
from pathlib import Path

import pytest

from sst2_ray.cluster.submit import upload as module
from sst2_ray.cluster.submit.arguments import read_variables, split_command
from sst2_ray.cluster.submit.client import submission_id
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


PLANTED = {
    "far.txt": "x" * 2**21 + " hf_" + "a" * 34,
    "slack.py": 'token = "xoxb-' + '123456789012-123456789012-abcdefghijklmnop"',
    "pat.md": "github_pat_" + "11ABCDEFG0123456789_abcdefghij",
    "openai.json": '{"key": "sk-proj-' + "Ab1" * 12 + '"}',
    "azure.txt": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + "a" * 86 + "==;",
    ".envrc": "export X=1",
    ".kube/config": "users: []",
    ".docker/config.json": "{}",
    "kube.yaml": "client-key-data: " + "QUJD" * 20,
    "registry.json": '{"auths": {"r": {"auth": "' + "dXNlcjpwYXNzd29yZA==" + '"}}}',
    "model.bin": "\0\1\2 hf_" + "b" * 34,
    "docker.sh": "docker login -p dckr_pat_" + "aB3" * 9,
    "publish.sh": "npm_" + "aB3" * 12,
    "google.json": '{"client_secret": "GOCSPX-' + "aB3" * 9 + '"}',
    "vault.hcl": "token = hvs." + "aB3" * 10,
    "databricks.ini": "token = dapi" + "0a" * 16,
    "ngc.sh": "nvapi-" + "aB3" * 20,
    "grafana.yaml": "key: glsa_" + "aB3" * 12,
    "azure_app.py": "secret = '1aB" + "8Q~" + "aB3" * 11 + "'",
    "aws.sh": "export AWS_SECRET_ACCESS_KEY=" + "aB3/" * 10,
    "wandb.py": "os.environ['WANDB_API_KEY'] = '" + "0a" * 20 + "'",
    ".streamlit/secrets.toml": "x = 1",
    "terraform.tfstate": "{}",
    "heroku.sh": "HEROKU_API_KEY=12345678-1234-1234-1234-" + "123456789abc",
    "app.py": 'password = "' + 'S3cr3tPassw0rd!"',
    "values.yaml": "  db_password: " + "S3cr3tPassw0rd99",
    "login.json": '{"token": "' + "aB3dE5gH7j" * 3 + '"}',
    "setup.py": 'os.environ.setdefault("COHERE_API_KEY", "' + "aB3dE5gH7j" * 4 + '")',
    "compose.yaml": "url: postgres://me:" + "hunter2@db.internal:5432/x",
    "clone.sh": "git clone https://oauth2:" + "S3cr3tT0ken@gitlab.com/x/y.git",
    "redis.ini": "url = redis://:" + "S3cr3t@redis:6379/0",
    "curl.sh": "curl -H 'Authorization: Bearer " + "aB3dE5gH7j" * 3 + "'",
    "basic.http": "Authorization: Basic " + "dXNlcjpwYXNzd29yZDEyMw==",
    "sas.txt": "https://x.blob.core.windows.net/c?sv=2022-11-02&sig=" + "aB3dE5gH7jK" * 4 + "%3D",
    "hook.js": "https://discord.com/api/webhooks/123456789012345678/" + "aB3dE5gH7j" * 7,
    "groq.py": "gsk_" + "aB3dE5gH7j" * 5,
    "stripe.md": "sk_test_" + "aB3dE5gH7j" * 3,
    "tailscale.sh": "tskey-auth-" + "aB3dE5gH7j1CNTRL-" + "aB3dE5gH7j" * 3,
    "netrc.txt": "machine api.wandb.ai\n  login user\n  password " + "0a" * 20,
    "wandb.ipynb": '"source": ["wandb.login(key=\\"wandb_v1_' + "aB3dE5gH7j" * 5 + '\\")"]',
    ".env.example": "HF_TOKEN=hf_" + "aB3" * 12,
    "prod.env": "x",
    ".ENV": "x",
    "deploy_rsa": "x",
    ".bash_history": "ls",
    ".config/gh/hosts.yml": "x",
}


@pytest.mark.parametrize("name", PLANTED)
def test_secrets_are_found_wherever_they_stand(project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True, parents=True)
    (project / name).write_text(PLANTED[name])
    with pytest.raises(InputError, match=f"secrets: {name} "):
        check_upload(list_upload(project))


def test_a_secret_in_a_file_that_powershell_wrote_is_found(project: Path) -> None:
    (project / "notes.txt").write_text("hf_" + "a" * 34, encoding="utf-16")
    with pytest.raises(InputError, match=r"secrets: notes\.txt "):
        check_upload(list_upload(project))


def test_words_that_only_sound_like_secrets_are_uploaded(project: Path) -> None:
    harmless = [
        "SORT_KEY=1",
        "token = tokenizer.sep_token",
        "sk-learn-pipelines-are-fine",
        "eyJ is no token",
        "password: str",
        "hf_hub",
        "api_key = os.environ['WANDB_API_KEY']",
        "access_token=None, secret_key: str = 'change me'",
        "commit 448824d0448824d0448824d0448824d0448824d0",
        "dapi, npm_config_cache, hvs.plot(), r8_kernel, ya29",
        "sha256 = '" + "0a" * 32 + "'",
        "token = 'sst2-ray-training-token-v12', password = 'postgres1', secret: my-secret-2024",
        "access_token = request.headers2, api_key=config.keys['service-1'], secret = base64.b64decode(x)",
        "postgres://postgres:postgres@localhost:5432/test https://user:pass@example.com https://<user>:<token>@github.com",
        "postgres://me:${PASSWORD}@db.internal/x, github://org:repo2@main, http://127.0.0.1:8265",
        "AWS_SECRET_ACCESS_KEY=${{ secrets.AWS }}, api_key: <your key>, export WANDB_API_KEY=$WANDB",
        "xoxb-your-token-here, sk_live_, Authorization: Bearer {token}, glpat-, tskey-auth-xxx",
        "uuid 12345678-1234-1234-1234-123456789abc, task-" + "0a" * 16 + ", sig=signature",
        "primary_key = 'a1B2c3D4e5F6g7H8', cache_key: 0a1b2c3d4e5f60718293a4b5",
    ]
    (project / "notes.txt").write_text("\n".join(harmless))
    check_upload(list_upload(project))


def test_a_file_of_three_gigabytes_is_refused_before_it_is_read(project: Path) -> None:
    with (project / "big.bin").open("wb") as file:
        file.truncate(3 * 2**30)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"the upload is 3.00 GiB.*the largest: big.bin"):
        check_upload(list_upload(project))
    assert time.monotonic() - started < 1


def test_what_cannot_be_packaged_is_named_with_the_reason(project: Path) -> None:
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(project):  # a short name: sockets take 107 bytes
        server.bind("socket")
    (project / "jobs/up").symlink_to(project)
    (project / "self").symlink_to("self")
    (Path(os.fsdecode(bytes(project) + b"/caf\xe9"))).write_text("x")
    with pytest.raises(InputError) as refused:
        check_upload(list_upload(project))
    told = str(refused.value)
    assert (
        "caf\\udce9 (its name is not UTF-8)" in told
        and "jobs/up (a link to a folder above it: an endless loop)" in told
    )
    assert (
        "pipe (a named pipe)" in told and "self (a link that leads to itself)" in told and "socket (a socket)" in told
    )


def test_a_link_into_the_system_is_named(project: Path) -> None:
    (project / "self").symlink_to("/proc/self")
    (project / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"self \(a link into /proc.*zero \(a link into /dev"):
        check_upload(list_upload(project))


@pytest.mark.parametrize("content", [b"caf\xe9\n", b"!\n"])
def test_an_ignore_file_that_ray_cannot_read_is_named(project: Path, content: bytes) -> None:
    (project / "jobs/.gitignore").write_bytes(content)
    with pytest.raises(InputError, match=r"jobs \(its .gitignore or .rayignore cannot be read: "):
        check_upload(list_upload(project))


def test_a_pattern_that_is_none_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"^--exclude: "):
        list_upload(project, ["!"])


def test_a_name_with_control_characters_is_one_line(project: Path) -> None:
    (project / "a\nb\x1b[31m.pem").write_text("x")
    with pytest.raises(InputError) as refused:
        check_upload(list_upload(project))
    assert r"a\nb\x1b[31m.pem (named like *.pem)" in str(refused.value)


def test_a_file_that_is_gone_when_it_is_read_is_one_line(project: Path) -> None:
    upload = list_upload(project)
    (project / "README.md").unlink()
    with pytest.raises(InputError, match=r"README.md: cannot be read \(No such file or directory\)"):
        check_upload(upload)


def test_links_that_multiply_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 200)
    (project / "z0").mkdir()
    for number in range(1, 30):  # 2^29 ways to z0
        for name in ("left", "right"):
            (project / f"z{number}").mkdir(exist_ok=True)
            (project / f"z{number}" / name).symlink_to(f"../z{number - 1}")
    with pytest.raises(InputError, match=r"more than 200 files and folders, most of them below z\d+ \("):
        list_upload(project)


def test_a_file_that_you_cannot_read_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "README.md")  # root may read everything
    with pytest.raises(InputError, match=r"README.md \(not readable by you\)"):
        check_upload(list_upload(project))


def test_links_to_outside_are_listed_and_links_to_nothing_left_out(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "rows.csv").write_text("a,b")
    (project / "data").symlink_to(elsewhere)
    (project / "gone").symlink_to("nowhere")
    upload = list_upload(project)
    check_upload(upload)
    assert upload.outside == ("data",) and "data/rows.csv" in names(project) and "gone" not in names(project)


def test_what_is_listed_is_what_ray_packages(project: Path, tmp_path: Path) -> None:
    (project / "jobs/.gitignore").write_text("*.tmp\n")
    for name in ("jobs/a.tmp", "b.tmp", "jobs/deep/c.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    from ray._private.runtime_env.packaging import create_package

    target = tmp_path.with_suffix(".zip")
    create_package(str(project), target, include_gitignore=True, excludes=list(module.DEFAULT_EXCLUDES))
    with zipfile.ZipFile(target) as packaged:
        assert sorted(name for name in packaged.namelist() if not name.endswith("/")) == names(project)


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
        read_variables((f"{name}=hunter2",))
    assert name in str(refused.value) and "hunter2" not in str(refused.value)


def test_variables_that_are_no_secrets_pass() -> None:
    assert read_variables(("HF_HUB_OFFLINE=1", "NCCL_DEBUG=a=b")) == {"HF_HUB_OFFLINE": "1", "NCCL_DEBUG": "a=b"}
