"""API keys: their owner, and who may create and delete them."""

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
    return {entry["user"]: entry["id"] for entry in answer.json()["keys"]}


class TestMe:
    def test_returns_the_owner_of_the_key(self, api, root):
        assert api.get("/v1/me").json() == {"user": "ada", "is_admin": False}
        assert api.get("/v1/me", headers=root).json() == {"user": "root", "is_admin": True}
        problem(api.get("/v1/me", headers=bearer("kt_unknown")), 401)


class TestList:
    def test_users_see_their_own_keys_and_admins_all(self, api, key, root):
        api_keys.create("bob")
        (mine,) = api.get("/v1/keys").json()["keys"]
        assert mine["fingerprint"] == hashlib.sha256(key.encode()).hexdigest()[:8]
        assert (mine["user"], mine["is_admin"], mine["is_used"]) == ("ada", False, True)
        keys = api.get("/v1/keys", headers=root).json()["keys"]
        assert [(entry["user"], entry["is_used"]) for entry in keys] == [("bob", False), ("root", True), ("ada", False)]
        assert key not in api.get("/v1/keys", headers=root).text


class TestCreate:
    def test_returns_a_working_key(self, api, root):
        response = api.post("/v1/keys", json={"user": "eve"}, headers=root)
        assert response.status_code == 201
        created = response.json()
        assert (created["user"], created["is_admin"], created["is_used"]) == ("eve", False, False)
        assert api.get("/v1/me", headers=bearer(created["key"])).json() == {"user": "eve", "is_admin": False}
        (listed,) = api.get("/v1/keys", headers=bearer(created["key"])).json()["keys"]
        assert listed == {name: created[name] for name in listed} | {"is_used": True}

    def test_can_grant_admin_and_never_revokes_it(self, api, root):
        for admin in (True, False):
            created = api.post("/v1/keys", json={"user": "ada", "admin": admin}, headers=root).json()
            assert created["is_admin"]
        assert len(api.get("/v1/keys").json()["keys"]) == 4  # ada is an admin now

    def test_only_admins_may_create_keys(self, api):
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
    def test_invalid_requests_name_the_field(self, api, root, body, pointer):
        errors = problem(api.post("/v1/keys", json=body, headers=root), 422)["errors"]
        assert [error["pointer"] for error in errors] == [pointer]


class TestKeyFile:
    """The owner's key file, which each start of `kotrain up` reads."""

    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "key"

    def start(self, file):
        stack.write_key(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return file.read_text().strip()

    def test_key_is_kept(self, api, file):
        first = self.start(file)
        assert self.start(file) == first
        assert api.get("/v1/me", headers=bearer(first)).json() == {"user": "owner", "is_admin": True}

    def test_deleted_key_is_replaced(self, api, root, file):
        deleted = self.start(file)
        assert (
            api.delete(f"/v1/keys/{ids(api.get('/v1/keys', headers=root))['owner']}", headers=root).status_code == 204
        )
        replacement = self.start(file)
        problem(api.get("/v1/me", headers=bearer(deleted)), 401)
        assert api.get("/v1/me", headers=bearer(replacement)).json() == {"user": "owner", "is_admin": True}

    def test_key_is_registered_in_a_new_database(self, empty, file):
        file.write_text("kt_brought_along\n")
        assert self.start(file) == "kt_brought_along"
        assert api_keys.is_known("kt_brought_along")


class TestDelete:
    def test_deleted_key_is_rejected(self, api, root):
        key = api_keys.create("bob")
        key_ids = ids(api.get("/v1/keys", headers=root))
        assert api.delete(f"/v1/keys/{key_ids['bob']}", headers=root).status_code == 204
        problem(api.get("/v1/me", headers=bearer(key)), 401)
        problem(api.delete(f"/v1/keys/{key_ids['bob']}", headers=root), 404)

    def test_own_key_can_be_deleted(self, api):
        unused_key = api_keys.create("ada")
        (unused,) = [entry["id"] for entry in api.get("/v1/keys").json()["keys"] if not entry["is_used"]]
        assert api.delete(f"/v1/keys/{unused}").status_code == 204
        problem(api.get("/v1/me", headers=bearer(unused_key)), 401)

    def test_key_in_use_cannot_be_deleted(self, api):
        (mine,) = api.get("/v1/keys").json()["keys"]
        assert "use another key" in problem(api.delete(f"/v1/keys/{mine['id']}"), 409)["detail"]
        assert api.get("/v1/me").status_code == 200

    def test_key_of_another_user_cannot_be_deleted(self, api, root):
        key_ids = ids(api.get("/v1/keys", headers=root))
        assert problem(api.delete(f"/v1/keys/{key_ids['root']}"), 403)["detail"] == (
            f"key {key_ids['root']} belongs to root"
        )

    def test_admin_key_can_be_deleted_if_another_exists(self, api, root):
        api_keys.create("second", admin=True)
        key_ids = ids(api.get("/v1/keys", headers=root))
        assert api.delete(f"/v1/keys/{key_ids['second']}", headers=root).status_code == 204

    def test_concurrent_deletes_leave_one_admin_key(self, api, root):
        """The first delete is not committed yet when the second checks for another admin key."""
        second = bearer(api_keys.create("second", admin=True))
        key_ids = ids(api.get("/v1/keys", headers=root))
        with database.transaction() as session:
            used = api_keys.authenticated_key(session, second["Authorization"])
            api_keys.delete(session, used, session.get(ApiKey, key_ids["root"]).id)
            answers = []
            other = threading.Thread(
                target=lambda: answers.append(api.delete(f"/v1/keys/{key_ids['second']}", headers=root))
            )
            other.start()  # it waits for this transaction, or starts after it
        other.join()
        assert answers[0].status_code in (401, 409)
        assert list(ids(api.get("/v1/keys", headers=second))) == ["second", "ada"]

    def test_last_admin_key_cannot_be_deleted(self, api, root):
        """Also if the deleting user's own admin key has just been deleted."""
        with database.transaction() as session:
            used = api_keys.authenticated_key(session, root["Authorization"])
            session.expunge(used)
        with database.transaction() as session:
            second = api_keys.authenticated_key(session, bearer(api_keys.create("second", admin=True))["Authorization"])
            api_keys.delete(session, second, used.id)
        with database.transaction() as session, pytest.raises(api_keys.Conflict, match="the last admin key"):
            api_keys.delete(session, used, second.id)
