"""--mode prepare: what it asks the network for, and what it says when that fails."""

import socket
import sys
import time
import urllib.request

import tensorflow_datasets
import tfds_sets  # noqa: F401  # tells TFDS of them
from data_sets import mistake

from ddpm.data.tfds import prepare


def test_prepare_offline_is_told_at_once(tmp_path, offline):
    since = time.monotonic()
    assert mistake(prepare, dataset="cifar10", data_dir=str(tmp_path)) == (
        "cifar10 is downloaded from www.cs.toronto.edu, which cannot be reached (Network is unreachable). "
        f"Connect, or copy a prepared set to {tmp_path}/cifar10/3.0.2."
    )
    assert time.monotonic() - since < 3
    assert offline == [("www.cs.toronto.edu", 443)]


def test_prepare_asks_the_ports_that_are_used_and_is_content_with_one(tmp_path, offline, monkeypatch):
    urls = [
        "http://a.example/1.zip",
        "https://b.example/2.zip",
        "https://b.example:8443/3.zip",
        "ftp://c.example/4.zip",
    ]
    colour = tensorflow_datasets.builder_cls("ddpm_colour")
    monkeypatch.setattr(colour, "url_infos", dict.fromkeys(urls))
    where = dict(dataset="ddpm_colour", data_dir=str(tmp_path))
    assert mistake(prepare, **where) == (
        "ddpm_colour is downloaded from a.example, b.example, c.example, which cannot be reached (Network is "
        f"unreachable). Connect, or copy a prepared set to {tmp_path}/ddpm_colour/1.0.0."
    )
    assert offline == [("a.example", 80), ("b.example", 443), ("b.example", 8443), ("c.example", 21)]

    def one_answers(address, timeout):
        assert timeout <= 5
        if address != ("b.example", 443):
            raise OSError("Network is unreachable")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", one_answers)
    assert prepare(**where) == f"ddpm_colour is prepared in {tmp_path}/ddpm_colour/1.0.0"


def test_prepare_behind_a_proxy_asks_no_host(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(tensorflow_datasets.builder_cls("ddpm_colour"), "url_infos", {"https://a.example/1.zip": None})
    where = dict(dataset="ddpm_colour", data_dir=str(tmp_path))
    assert prepare(**where) == f"ddpm_colour is prepared in {tmp_path}/ddpm_colour/1.0.0"
    assert not offline


def test_prepare_without_tensorflow_says_so_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert mistake(prepare, dataset="ddpm_needs_tensorflow", data_dir=str(tmp_path)) == (
        "TFDS needs TensorFlow to prepare ddpm_needs_tensorflow: pip install 'ddpm[prepare]'. "
        "Training does not need it, so another environment may prepare the set."
    )


def test_prepare_passes_on_what_tfds_says(tmp_path, monkeypatch):
    def fail(self, **_):
        raise AssertionError("Manual directory is empty.\n  Put there: a.zip")

    monkeypatch.setattr(tensorflow_datasets.builder_cls("ddpm_colour"), "download_and_prepare", fail)
    assert mistake(prepare, dataset="ddpm_colour", data_dir=str(tmp_path)) == (
        "TFDS could not prepare ddpm_colour: AssertionError: Manual directory is empty. Put there: a.zip"
    )
