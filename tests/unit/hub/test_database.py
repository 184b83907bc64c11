"""Migrations lead to exactly the metadata, and the database holds what code may race for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from oracle.clients.hub.database import MIGRATIONS, open_database
from oracle.clients.hub.errors import ProfileOutdated
from oracle.clients.hub.keys import Principal
from oracle.clients.hub.store import Store
from oracle.clients.hub.tables import metadata
from settlement.hub.account import Role
from settlement.hub.client import HubRefused
from settlement.hub.messages import DatasetProfile, JobRequest, JobState

World = Any


def test_migrated_schema_is_the_metadata(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert names == set(metadata.tables)
    engine.dispose()


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    first = open_database(url)
    with first.begin() as connection:
        connection.execute(text("INSERT INTO profiles VALUES ('1', '{}', 5, 0)"))
    first.dispose()
    second = open_database(url)
    with second.begin() as connection:
        assert connection.execute(text("SELECT node_id FROM profiles")).scalars().all() == ["1"]
    second.dispose()


def test_profile_from_before_commitments_is_asked_for_anew(
    tmp_path: Path, make_profile: Callable[..., DatasetProfile]
) -> None:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    engine = open_database(url)
    new = make_profile(2).model_dump_json()
    old = {**make_profile(1).model_dump(mode="json"), "dataset_digest": "0x" + "77" * 32}
    del old["records_root"]
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        for node_id, document in (("1", json.dumps(old)), ("2", new)):
            row = {"node_id": node_id, "document": document}
            connection.execute(text("INSERT INTO profiles VALUES (:node_id, :document, 5)"), row)
    engine.dispose()
    store = Store(open_database(url))
    assert [profile.node_id for profile in store.profiles()] == [2]
    assert store.outdated() == {1}
    with pytest.raises(ProfileOutdated, match="publish it anew"):
        store.profile(1)
    store.put_profile(make_profile(1), Principal(Role.NODE, "1"), 9)
    assert [profile.node_id for profile in store.profiles()] == [1, 2]
    assert store.outdated() == frozenset()
    store.close()


def test_node_with_an_outdated_profile_is_told_when_there_is_work(
    world: World, make_request: Callable[..., JobRequest]
) -> None:
    created = world.funded(make_request())
    with world.store.write() as tx:
        tx.execute(text("UPDATE profiles SET outdated = 1"))
    with pytest.raises(HubRefused, match="publish it anew") as caught:
        world.party("1").lease(1)
    assert (caught.value.code, caught.value.status) == ("ProfileOutdated", 409)
    catalogue = world.http.get("/v1/catalogue/1", headers=world.headers("acme"))
    assert (catalogue.status_code, catalogue.json()["code"]) == (409, "ProfileOutdated")
    (node,) = world.http.get("/v1/operator/nodes", headers=world.headers("boss")).json()["nodes"]
    assert "publish it anew" in node["needs"]
    with pytest.raises(HubRefused, match="NoNodeAvailable"):
        world.party("acme").create_job(make_request())
    assert world.party("acme").job(created.job_id).state is JobState.FUNDED


def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
    with engine.begin() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    with (
        pytest.raises(IntegrityError, match="FOREIGN KEY"),
        engine.begin() as connection,
    ):
        connection.execute(text("INSERT INTO artifacts VALUES ('0x00', 'weights', 'aa', 1)"))
    engine.dispose()
