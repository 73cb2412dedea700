"""Tests that what the machine of the user lacks is said in one line with its remedy, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from sst2_ray.cluster import down
from sst2_ray.cluster.doctor.laptop import check_laptop, check_token
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.cluster.findings import Finding, Findings
from sst2_ray.errors import InputError
from tests.support.cluster_files import FILES


def told(findings: list[Finding], text: str) -> Finding:
    (finding,) = [finding for finding in findings if text in finding.what]
    return finding


def token_finding() -> Finding:
    found = Findings()
    check_token(found)
    (finding,) = found
    return finding


def test_a_first_time_user_without_a_token_is_warned_and_not_refused(home: Path) -> None:
    (home / ".ray/auth_token").unlink()
    finding = token_finding()
    assert finding.level == "warning" and "`sst2-ray up` makes one" in finding.remedy


def test_a_token_that_others_can_read_or_guess_is_an_error(home: Path) -> None:
    token = home / ".ray/auth_token"
    token.chmod(0o644)
    assert (
        token_finding().line()
        == "ERROR   ~/.ray/auth_token: readable by others (mode 644); chmod 600 ~/.ray/auth_token"
    )
    token.chmod(0o600)
    token.write_text("secret")
    assert token_finding().level == "error"


def test_missing_aws_credentials_are_an_error_and_found_ones_are_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    cluster = load_cluster_file(FILES["aws"])
    assert told(check_laptop(cluster), "no AWS credentials").level == "error"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert told(check_laptop(cluster), "nobody").level == "error"
    monkeypatch.delenv("AWS_PROFILE")
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = s\n")
    assert told(check_laptop(cluster), "AWS credentials are there").level == "ok"


@pytest.mark.usefixtures("home")
def test_down_where_aws_does_not_answer_is_one_line_and_does_not_run_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setattr(down, "run_ray", lambda *_: pytest.fail("ray was run"))
    with pytest.raises(InputError, match="AWS: Unable to locate credentials; aws configure"):
        down.main([str(FILES["aws"])])
