"""Whose key it is, and who makes and takes back others."""

import hashlib
import stat
import threading

import pytest

from service.accounts import api_keys
from service.operations import stack
from service.storage import database
from service.storage.tables import ApiKey
from tests.integration.test_api import problem


@pytest.fixture
def root(api):
    """The headers of an admin."""
    return bearer(api_keys.create("root", admin=True))


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def ids(answer):
    return {one["user"]: one["id"] for one in answer.json()["keys"]}


class TestMe:
    def test_tells_whose_key_it_is(self, api, root):
        assert api.get("/v1/me").json() == {"user": "ada", "is_admin": False}
        assert api.get("/v1/me", headers=root).json() == {"user": "root", "is_admin": True}
        problem(api.get("/v1/me", headers=bearer("kt_unknown")), 401)


class TestList:
    def test_everybody_sees_the_own_ones_and_an_admin_all(self, api, key, root):
        api_keys.create("bob")
        (mine,) = api.get("/v1/keys").json()["keys"]
        assert mine["fingerprint"] == hashlib.sha256(key.encode()).hexdigest()[:8]
        assert (mine["user"], mine["is_admin"], mine["is_used"]) == ("ada", False, True)
        found = api.get("/v1/keys", headers=root).json()["keys"]
        assert [(one["user"], one["is_used"]) for one in found] == [("bob", False), ("root", True), ("ada", False)]
        assert key not in api.get("/v1/keys", headers=root).text


class TestCreate:
    def test_answers_a_key_that_works(self, api, root):
        response = api.post("/v1/keys", json={"user": "eve"}, headers=root)
        assert response.status_code == 201
        made = response.json()
        assert (made["user"], made["is_admin"], made["is_used"]) == ("eve", False, False)
        assert api.get("/v1/me", headers=bearer(made["key"])).json() == {"user": "eve", "is_admin": False}
        (listed,) = api.get("/v1/keys", headers=bearer(made["key"])).json()["keys"]
        assert listed == {name: made[name] for name in listed} | {"is_used": True}

    def test_makes_an_admin_and_unmakes_none(self, api, root):
        for admin in (True, False):
            made = api.post("/v1/keys", json={"user": "ada", "admin": admin}, headers=root).json()
            assert made["is_admin"]
        assert len(api.get("/v1/keys").json()["keys"]) == 4  # ada is an admin by now

    def test_is_for_admins(self, api):
        assert problem(api.post("/v1/keys", json={"user": "eve"}), 403)["detail"] == "only an admin can create keys"

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/user"),
            ({"user": ""}, "/user"),
            ({"user": "a\x00"}, "/user"),
            ({"user": "a" * 65}, "/user"),
            ({"user": "a", "admin": "yes"}, "/admin"),
            ({"user": "a", "key": "kt_mine"}, "/key"),
        ],
    )
    def test_what_is_wrong_is_named(self, api, root, body, pointer):
        errors = problem(api.post("/v1/keys", json=body, headers=root), 422)["errors"]
        assert [error["pointer"] for error in errors] == [pointer]


class TestTheOwnerSFile:
    """As each start of `kotrain up` finds it."""

    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "key"

    def start(self, file):
        stack.write_key(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return file.read_text().strip()

    def test_keeps_its_key(self, api, file):
        first = self.start(file)
        assert self.start(file) == first
        assert api.get("/v1/me", headers=bearer(first)).json() == {"user": "owner", "is_admin": True}

    def test_gets_another_where_its_key_was_taken_back(self, api, root, file):
        lost = self.start(file)
        assert (
            api.delete(f"/v1/keys/{ids(api.get('/v1/keys', headers=root))['owner']}", headers=root).status_code == 204
        )
        found = self.start(file)
        problem(api.get("/v1/me", headers=bearer(lost)), 401)
        assert api.get("/v1/me", headers=bearer(found)).json() == {"user": "owner", "is_admin": True}

    def test_brings_its_key_along_to_a_database_without_any(self, empty, file):
        file.write_text("kt_brought_along\n")
        assert self.start(file) == "kt_brought_along"
        assert api_keys.is_known("kt_brought_along")


class TestDelete:
    def test_a_key_taken_back_opens_nothing(self, api, root):
        key = api_keys.create("bob")
        found = ids(api.get("/v1/keys", headers=root))
        assert api.delete(f"/v1/keys/{found['bob']}", headers=root).status_code == 204
        problem(api.get("/v1/me", headers=bearer(key)), 401)
        problem(api.delete(f"/v1/keys/{found['bob']}", headers=root), 404)

    def test_one_s_own(self, api):
        other = api_keys.create("ada")
        (mine,) = [one["id"] for one in api.get("/v1/keys").json()["keys"] if not one["is_used"]]
        assert api.delete(f"/v1/keys/{mine}").status_code == 204
        problem(api.get("/v1/me", headers=bearer(other)), 401)

    def test_not_the_one_in_use(self, api):
        (mine,) = api.get("/v1/keys").json()["keys"]
        assert "use another key" in problem(api.delete(f"/v1/keys/{mine['id']}"), 409)["detail"]
        assert api.get("/v1/me").status_code == 200

    def test_nobody_else_s(self, api, root):
        found = ids(api.get("/v1/keys", headers=root))
        assert problem(api.delete(f"/v1/keys/{found['root']}"), 403)["detail"] == (
            f"key {found['root']} belongs to root"
        )

    def test_an_admin_s_while_there_is_another(self, api, root):
        api_keys.create("second", admin=True)
        found = ids(api.get("/v1/keys", headers=root))
        assert api.delete(f"/v1/keys/{found['second']}", headers=root).status_code == 204

    def test_two_admins_at_once_leave_one(self, api, root):
        """The other's key goes while ours is looked at: then there is no other any more."""
        second = bearer(api_keys.create("second", admin=True))
        found = ids(api.get("/v1/keys", headers=root))
        with database.transaction() as session:
            used = api_keys.used(session, second["Authorization"])
            api_keys.delete(session, used, session.get(ApiKey, found["root"]).id)
            answers = []
            other = threading.Thread(
                target=lambda: answers.append(api.delete(f"/v1/keys/{found['second']}", headers=root))
            )
            other.start()  # it waits for us, or comes late
        other.join()
        assert answers[0].status_code in (401, 409)
        assert list(ids(api.get("/v1/keys", headers=second))) == ["second", "ada"]

    def test_the_last_one_of_all_admins(self, api, root):
        """As somebody who was an admin a moment ago meets it."""
        with database.transaction() as session:
            used = api_keys.used(session, root["Authorization"])
            session.expunge(used)
        with database.transaction() as session:
            second = api_keys.used(session, bearer(api_keys.create("second", admin=True))["Authorization"])
            api_keys.delete(session, second, used.id)
        with database.transaction() as session, pytest.raises(api_keys.Conflict, match="the last admin key"):
            api_keys.delete(session, used, second.id)
