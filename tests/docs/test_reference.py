"""The reference names everything that is public, and nothing that is not there."""

from __future__ import annotations

import inspect

from scripts.docs_site import reference


def test_every_public_name_is_documented() -> None:
    documented = reference.documented()
    things = [(name, thing) for name, thing in reference.public_names() if not inspect.ismodule(thing)]
    missing = [name for name, thing in things if id(thing) not in documented]
    assert missing == [], "name it on a page of docs/reference: ::: steerlens.NAME"


def test_directives_lead_to_where_things_are_defined() -> None:
    page = reference.resolved("# Vectors\n\n::: steerlens.actadd\n\n::: steerlens.measures.metrics\n")
    assert "::: steerlens.steering.extraction.actadd.actadd" in page
    assert '<a id="steerlens.actadd"></a>' in page
    assert reference.resolved("[`pca`][steerlens.pca]") == "[`pca`][steerlens.steering.extraction.pca.pca]"
    assert "::: steerlens.measures.metrics" in page
