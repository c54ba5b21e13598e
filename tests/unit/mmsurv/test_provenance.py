"""Fingerprints of recipes."""

import pytest

from mmsurv import provenance


def test_the_order_of_keys_does_not_change_a_fingerprint() -> None:
    assert provenance.fingerprint({"a": 1, "b": {"c": 0.5, "d": "ü"}}) == provenance.fingerprint(
        {"b": {"d": "ü", "c": 0.5}, "a": 1}
    )
    assert provenance.fingerprint({"a": 1}) != provenance.fingerprint({"a": 2})


def test_a_value_without_a_canonical_form_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        provenance.fingerprint({"a": float("nan")})


def test_differences_are_named_by_dotted_field() -> None:
    table = provenance.difference_table(
        {"encoder": {"name": "resnet50", "weights": "3" * 64}, "same": 1}, {"encoder": {"name": "resnet18"}, "same": 1}
    )
    assert table.splitlines() == [
        "  encoder.name     resnet50      → resnet18",
        "  encoder.weights  333333333333… → –",
    ]


def test_versions_are_found_without_importing() -> None:
    found = provenance.versions(["h5py", "no-such-library"])
    assert set(found) == {"python", "h5py"}


def test_a_file_digest_is_its_sha256(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert provenance.file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
