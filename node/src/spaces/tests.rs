//! Spaces as clients see them, through the router of a node.

mod succession;

use std::sync::Arc;

use axum::http::Method;
use mychat_replication::store::StoreError;
use serde_json::{Value, json};

use super::{
    Role, Visibility,
    invitation::Invitation,
    rules::{self, RoleChange},
};
use crate::{
    ids::{AccountId, SpaceId},
    messages::tests::{events, events_of},
    testing::{Answer, Person, TestNode},
    timestamp,
};

async fn space(node: &TestNode, owner: &Person, wish: Value) -> String {
    let space = node.post("/v1/spaces", &owner.token, wish).await.expect(201);
    space["id"].as_str().expect("an id").to_owned()
}

async fn put_role(node: &TestNode, space: &str, who: &Person, whom: &str, role: Value) -> Answer {
    let path = format!("/v1/spaces/{space}/members/{whom}");
    node.call(Method::PUT, &path, Some(&who.token), Some(json!({ "role": role }))).await
}

async fn remove(node: &TestNode, space: &str, who: &Person, whom: &str) -> Answer {
    node.call(Method::DELETE, &format!("/v1/spaces/{space}/members/{whom}"), Some(&who.token), None).await
}

async fn invite(node: &TestNode, space: &str, who: &Person, whom: Value) -> Answer {
    node.post(&format!("/v1/spaces/{space}/invitations"), &who.token, whom).await
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item[field].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_space_has_the_shape_of_the_contract() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let created =
        node.post("/v1/spaces", &ada.token, json!({ "name": " room ", "topic": "talk" })).await.expect(201);
    let expected = json!({
        "id": created["id"], "name": "room", "topic": "talk", "visibility": "private", "zone": "global",
        "retention_days": null, "created_at": created["created_at"], "role": "owner", "unread": 0,
        "last_message": null,
    });
    assert_eq!(created, expected);
    let path = format!("/v1/spaces/{}", created["id"].as_str().expect("an id"));
    assert_eq!(node.get(&path, &ada.token).await.expect(200), expected);
    assert_eq!(
        node.get("/v1/spaces", &ada.token).await.expect(200),
        json!({ "items": [expected], "next": null })
    );
    let message =
        node.post(&format!("{path}/messages"), &ada.token, json!({ "body": "hi" })).await.expect(201);
    assert_eq!(node.get(&path, &ada.token).await.expect(200)["last_message"], message);
    let members = node.get(&format!("{path}/members"), &ada.token).await.expect(200);
    let member = json!({
        "account": ada.id, "role": "owner", "since": members["items"][0]["since"], "name": "Ada",
        "handle": ada.handle, "online": false,
    });
    assert_eq!(members, json!({ "items": [member], "next": null }));
}

#[tokio::test]
async fn a_space_is_founded_with_its_retention() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let wish = json!({ "name": "room", "retention_days": 30 });
    let created = node.post("/v1/spaces", &ada.token, wish).await.expect(201);
    assert_eq!(created["retention_days"], 30);
    let path = format!("/v1/spaces/{}", created["id"].as_str().expect("an id"));
    assert_eq!(node.get(&path, &ada.token).await.expect(200), created);
}

#[tokio::test]
async fn what_is_no_space_is_refused() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    for body in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": "  " }),
        json!({ "name": 7 }),
        json!({ "name": "x".repeat(101) }),
        json!({ "name": "a\u{0}b" }),
        json!({ "name": "a", "topic": "x".repeat(1001) }),
        json!({ "name": "a", "visibility": "secret" }),
        json!({ "name": "a", "visibility": "direct" }),
        json!({ "name": "\u{200b}" }),
        json!({ "name": "\u{202e}a" }),
        json!({ "name": "a", "retention_days": 0 }),
        json!({ "name": "a", "retention_days": "30" }),
        json!([]),
    ] {
        node.post("/v1/spaces", &ada.token, body).await.is_problem(400, "invalid_body");
    }
    node.call(Method::POST, "/v1/spaces", Some(&ada.token), None).await.is_problem(400, "invalid_body");
    node.call(Method::POST, "/v1/spaces", None, Some(json!({ "name": "a" })))
        .await
        .is_problem(401, "unauthorized");
    for bad in ["?visibility=private", "?visibility=x", "?limit=0", "?cursor=x"] {
        assert_eq!(node.get(&format!("/v1/spaces{bad}"), &ada.token).await.status, 400, "{bad}");
    }
    for unknown in ["nothing", "0190b6f8-7c00-7000-8000-000000000000", "%00"] {
        for path in ["", "/members"] {
            let path = format!("/v1/spaces/{unknown}{path}");
            node.get(&path, &ada.token).await.is_problem(404, "not_found");
        }
        let path = format!("/v1/spaces/{unknown}/members/me");
        node.call(Method::PUT, &path, Some(&ada.token), None).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn settings_are_for_admins() {
    let node = TestNode::start();
    let (ada, grace) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    invite(&node, &id, &ada, json!({ "account": grace.id })).await.expect(201);
    let path = format!("/v1/spaces/{id}");
    let change = |who: &Person, body: Value| {
        let (node, path, token) = (&node, &path, who.token.clone());
        async move { node.call(Method::PATCH, path, Some(&token), Some(body)).await }
    };
    change(&grace, json!({ "name": "hers" })).await.is_problem(403, "forbidden");
    let all = json!({ "name": "new", "topic": "t", "visibility": "public", "retention_days": 30 });
    let now = change(&ada, all).await.expect(200);
    assert_eq!(
        (&now["name"], &now["topic"], &now["visibility"], &now["retention_days"]),
        (&json!("new"), &json!("t"), &json!("public"), &json!(30))
    );
    assert_eq!(node.get(&path, &ada.token).await.expect(200), now);
    let now = change(&ada, json!({ "retention_days": null, "topic": null })).await.expect(200);
    assert_eq!(
        (&now["retention_days"], &now["topic"], &now["name"]),
        (&Value::Null, &json!(""), &json!("new"))
    );
    for bad in [
        json!({ "name": "" }),
        json!({ "retention_days": 0 }),
        json!({ "retention_days": -1 }),
        json!({ "visibility": "direct" }),
    ] {
        change(&ada, bad).await.is_problem(400, "invalid_body");
    }
    node.call(Method::DELETE, &path, Some(&grace.token), None).await.is_problem(403, "forbidden");
    node.call(Method::DELETE, &path, Some(&ada.token), None).await.expect(204);
    for person in [&ada, &grace] {
        node.get(&path, &person.token).await.is_problem(404, "not_found");
        assert_eq!(node.get("/v1/spaces", &person.token).await.expect(200)["items"], json!([]));
    }
    node.post(&format!("{path}/messages"), &ada.token, json!({ "body": "x" }))
        .await
        .is_problem(404, "not_found");
}

#[tokio::test]
async fn public_spaces_can_be_found_and_joined() {
    let node = TestNode::start();
    let (ada, grace) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
    let open = space(&node, &ada, json!({ "name": "open", "visibility": "public" })).await;
    let closed = space(&node, &ada, json!({ "name": "closed" })).await;
    let listed = node.get("/v1/spaces?visibility=public", &grace.token).await.expect(200);
    assert_eq!(ids(&listed, "id"), [open.as_str()]);
    assert_eq!(listed["items"][0]["role"], Value::Null);
    put_role(&node, &closed, &grace, "me", json!("member")).await.is_problem(404, "not_found");
    put_role(&node, &open, &grace, "me", json!("owner")).await.is_problem(403, "forbidden");
    put_role(&node, &open, &grace, "me", json!("king")).await.is_problem(400, "invalid_body");
    // Without a body too.
    let path = format!("/v1/spaces/{open}/members/me");
    let member = node.call(Method::PUT, &path, Some(&grace.token), None).await.expect(201);
    assert_eq!((&member["role"], &member["account"]), (&json!("member"), &json!(grace.id)));
    assert_eq!(node.call(Method::PUT, &path, Some(&grace.token), None).await.expect(200), member);
    assert_eq!(ids(&node.get("/v1/spaces", &grace.token).await.expect(200), "id"), [open.as_str()]);
    assert_eq!(ids(&node.get("/v1/spaces?visibility=public", &grace.token).await.expect(200), "id").len(), 0);
    remove(&node, &open, &grace, "me").await.expect(204);
    remove(&node, &open, &grace, "me").await.is_problem(404, "not_found");
    node.get(&format!("/v1/spaces/{open}/members"), &grace.token).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn roles_are_given_by_those_above() {
    let node = TestNode::start();
    let (ada, grace, joan) =
        (node.sign_up("Ada").await, node.sign_up("Grace").await, node.sign_up("Joan").await);
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    put_role(&node, &id, &ada, &grace.id, json!("member")).await.expect(201);
    put_role(&node, &id, &grace, &joan.id, json!("member")).await.is_problem(403, "forbidden");
    put_role(&node, &id, &grace, "me", json!("admin")).await.is_problem(403, "forbidden");
    put_role(&node, &id, &ada, &grace.id, json!("admin")).await.expect(200);
    put_role(&node, &id, &grace, &joan.id, json!("owner")).await.is_problem(403, "forbidden");
    put_role(&node, &id, &grace, &joan.id, json!("guest")).await.expect(201);
    put_role(&node, &id, &grace, &ada.id, json!("member")).await.is_problem(403, "forbidden");
    remove(&node, &id, &grace, &ada.id).await.is_problem(403, "forbidden");
    remove(&node, &id, &ada, "me").await.is_problem(409, "last_owner");
    put_role(&node, &id, &ada, "me", json!("admin")).await.is_problem(409, "last_owner");
    // Guests read and write, but invite nobody.
    node.post(&format!("/v1/spaces/{id}/messages"), &joan.token, json!({ "body": "hi" })).await.expect(201);
    invite(&node, &id, &joan, json!({ "link": true })).await.is_problem(403, "forbidden");
    put_role(&node, &id, &ada, &grace.id, json!("owner")).await.expect(200);
    remove(&node, &id, &ada, "me").await.expect(204);
    remove(&node, &id, &grace, &joan.id).await.expect(204);
    node.get(&format!("/v1/spaces/{id}"), &joan.token).await.is_problem(404, "not_found");
    // Whoever is alone may go.
    remove(&node, &id, &grace, "me").await.expect(204);
    for unknown in ["nobody", "0190b6f8-7c00-7000-8000-000000000000"] {
        let other = space(&node, &ada, json!({ "name": "other" })).await;
        put_role(&node, &other, &ada, unknown, json!("member")).await.is_problem(404, "not_found");
        remove(&node, &other, &ada, unknown).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_direct_conversation_is_one_at_whichever_node() {
    let here = TestNode::start();
    let (ada, grace, eve) =
        (here.sign_up("Ada").await, here.sign_up("Grace").await, here.sign_up("Eve").await);
    let there = TestNode::of(&here.app.config.cluster_key);
    here.copy_to(&there).await;
    let begin = |node, who: &Person, accounts: Value| {
        let token = who.token.clone();
        async move {
            let node: &TestNode = node;
            node.post("/v1/spaces/direct", &token, json!({ "accounts": accounts })).await
        }
    };
    let first = begin(&here, &ada, json!([grace.id])).await.expect(201);
    assert_eq!(
        (&first["visibility"], &first["role"], &first["name"]),
        (&json!("direct"), &json!("member"), &json!("Grace"))
    );
    let second = begin(&there, &grace, json!([ada.id, grace.id])).await.expect(201);
    assert_eq!((&second["id"], &second["name"]), (&first["id"], &json!("Ada")));
    here.copy_to(&there).await;
    there.copy_to(&here).await;
    let id = first["id"].as_str().expect("an id");
    for (node, who) in [(&here, &ada), (&there, &ada), (&here, &grace), (&there, &grace)] {
        let shown = node.get(&format!("/v1/spaces/{id}"), &who.token).await.expect(200);
        assert_eq!(shown["created_at"], first["created_at"]);
        assert_eq!(begin(node, who, json!([ada.id, grace.id])).await.expect(200)["id"], first["id"]);
        assert_eq!(ids(&node.get("/v1/spaces", &who.token).await.expect(200), "id"), [id]);
    }
    assert_ne!(begin(&here, &ada, json!([grace.id, eve.id])).await.expect(201)["id"], first["id"]);
    here.get(&format!("/v1/spaces/{id}"), &eve.token).await.is_problem(404, "not_found");
    // Its members are fixed.
    put_role(&here, id, &ada, &eve.id, json!("member")).await.is_problem(403, "forbidden");
    remove(&here, id, &ada, "me").await.is_problem(403, "forbidden");
    invite(&here, id, &ada, json!({ "link": true })).await.is_problem(403, "forbidden");
    begin(&here, &ada, json!([])).await.is_problem(400, "invalid_body");
    begin(&here, &ada, json!(["x"])).await.is_problem(400, "invalid_body");
    begin(&here, &ada, json!(["0190b6f8-7c00-7000-8000-000000000000"])).await.is_problem(404, "not_found");
    assert_eq!(begin(&here, &ada, json!([ada.id])).await.expect(201)["name"], "Ada");
}

#[tokio::test]
async fn invitations_by_account_handle_and_link() {
    let node = TestNode::start();
    let (ada, grace, joan, eve) = (
        node.sign_up("Ada").await,
        node.sign_up("Grace").await,
        node.sign_up("Joan").await,
        node.sign_up("Eve").await,
    );
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    invite(&node, &id, &eve, json!({ "account": eve.id })).await.is_problem(404, "not_found");
    let member =
        invite(&node, &id, &ada, json!({ "handle": format!("@{}", grace.handle) })).await.expect(201);
    assert_eq!((&member["account"], &member["role"]), (&json!(grace.id), &json!("member")));
    assert_eq!(invite(&node, &id, &ada, json!({ "account": grace.id })).await.expect(200), member);
    invite(&node, &id, &ada, json!({ "handle": "nobody-of-this-name" })).await.is_problem(404, "not_found");
    invite(&node, &id, &ada, json!({ "email": "joan@example.org" })).await.is_problem(400, "unsupported");
    for bad in [
        json!({}),
        json!({ "link": false }),
        json!({ "account": 5 }),
        json!({ "account": grace.id, "link": true }),
        json!({ "link": true, "uses": 0 }),
        json!({ "link": true, "expires": "soon" }),
    ] {
        invite(&node, &id, &ada, bad).await.is_problem(400, "invalid_body");
    }
    invite(&node, &id, &grace, json!({ "link": true, "role": "admin" })).await.is_problem(403, "forbidden");

    let link = invite(&node, &id, &grace, json!({ "link": true, "uses": 1 })).await.expect(201);
    let token = link["token"].as_str().expect("a token");
    assert_eq!(link["url"], format!("http://127.0.0.1:8081/#/invite/{token}"));
    assert!(timestamp::to_millis(link["expires_at"].as_str().expect("a time")).is_some());
    // Any node of the cluster honours it.
    let other = TestNode::of(&node.app.config.cluster_key);
    node.copy_to(&other).await;
    let accept = |node, who: &Person, token: &str| {
        let (path, bearer) = (format!("/v1/invitations/{token}/accept"), who.token.clone());
        async move {
            let node: &TestNode = node;
            node.call(Method::POST, &path, Some(&bearer), None).await
        }
    };
    let joined = accept(&other, &joan, token).await.expect(200);
    assert_eq!((&joined["id"], &joined["role"]), (&json!(id), &json!("member")));
    assert_eq!(accept(&other, &joan, token).await.expect(200)["role"], "member");
    accept(&other, &eve, token).await.is_problem(410, "invitation_expired");
    assert_eq!(accept(&other, &ada, token).await.expect(200)["role"], "owner");
    for forged in ["x", &token[1..], &format!("{token}A"), "%ff"] {
        accept(&other, &eve, forged).await.is_problem(404, "not_found");
    }
    node.call(Method::POST, &format!("/v1/invitations/{token}/accept"), None, None)
        .await
        .is_problem(401, "unauthorized");
}

#[tokio::test]
async fn links_end_with_time_and_with_their_sender() {
    let node = TestNode::start();
    let (ada, grace, eve) =
        (node.sign_up("Ada").await, node.sign_up("Grace").await, node.sign_up("Eve").await);
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    invite(&node, &id, &ada, json!({ "account": grace.id })).await.expect(201);
    let now = timestamp::now_millis();
    let link = |inviter: &Person, expires: u64| {
        let invitation = Invitation {
            space: id.parse().expect("an id"),
            inviter: inviter.id.parse().expect("an id"),
            role: Role::Member,
            issued: now,
            expires,
            uses: None,
            nonce: [0; 8],
        };
        invitation.seal(&node.app.config.cluster_key.derive("invite/1"))
    };
    let accept = |token: String| {
        let (node, bearer) = (&node, eve.token.clone());
        async move {
            node.call(Method::POST, &format!("/v1/invitations/{token}/accept"), Some(&bearer), None).await
        }
    };
    accept(link(&ada, now - 1)).await.is_problem(410, "invitation_expired");
    let of_grace = link(&grace, now + 1_000_000);
    accept(of_grace.clone()).await.expect(200);
    remove(&node, &id, &ada, &eve.id).await.expect(204);
    accept(of_grace.clone()).await.is_problem(403, "forbidden");
    remove(&node, &id, &ada, &grace.id).await.expect(204);
    accept(of_grace).await.is_problem(410, "invitation_expired");
    // A new link of somebody who may invite lets a removed account back in.
    let path = format!("/v1/spaces/{id}/invitations");
    let fresh = node.post(&path, &ada.token, json!({ "link": true })).await.expect(201);
    accept(fresh["token"].as_str().expect("a token").to_owned()).await.expect(200);
}

#[tokio::test]
async fn lists_page() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(space(&node, &ada, json!({ "name": number.to_string() })).await);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/v1/spaces?limit=2{cursor}"), &ada.token).await.expect(200);
        seen.extend(ids(&page, "id"));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn events_name_who_may_hear_them() {
    let node = TestNode::start();
    let (ada, grace) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    let path = format!("/v1/spaces/{id}");
    let of_spaces = |events: Vec<crate::events::Event>| -> Vec<_> {
        events
            .into_iter()
            .filter(|event| event.kind.starts_with("space.") || event.kind.starts_with("member."))
            .map(|event| (event.kind, event.space.is_some(), event.accounts, event.data))
            .collect()
    };
    let account = |person: &Person| person.id.parse::<AccountId>().expect("an id");
    let heard = of_spaces(events(&node).await);
    assert_eq!((heard[0].0, &heard[0].2), ("space.created", &vec![account(&ada)]));
    assert_eq!(heard[0].3, node.get(&path, &ada.token).await.expect(200), "as its founder sees it");

    invite(&node, &id, &ada, json!({ "account": grace.id })).await.expect(201);
    node.call(Method::PATCH, &path, Some(&ada.token), Some(json!({ "name": "hall" }))).await.expect(200);
    let heard = of_spaces(events(&node).await);
    let kinds: Vec<&str> = heard.iter().map(|event| event.0).collect();
    assert_eq!(kinds, ["space.created", "member.added", "member.added", "space.updated"]);
    assert_eq!((heard[0].2.len(), heard[0].3.get("role")), (2, None), "nothing that only one may see");
    assert_eq!(heard[2].2, [account(&grace)], "who was added hears of it");
    let added = &heard[2].3;
    assert_eq!(
        (&added["space"], &added["account"], &added["role"], &added["by"], &added["name"]),
        (&json!(id), &json!(grace.id), &json!("member"), &json!(ada.id), &json!("Grace"))
    );
    assert_eq!((&heard[3].3["name"], heard[3].3.get("role")), (&json!("hall"), None));

    remove(&node, &id, &ada, &grace.id).await.expect(204);
    let heard = of_spaces(events(&node).await);
    let kinds: Vec<&str> = heard.iter().map(|event| event.0).collect();
    assert_eq!(kinds, ["space.created", "member.added", "space.updated", "member.removed"]);
    assert_eq!(heard[3].2, [account(&grace)], "who was removed hears of it");

    node.call(Method::DELETE, &path, Some(&ada.token), None).await.expect(204);
    let heard = of_spaces(events(&node).await);
    let last = heard.last().expect("events");
    assert_eq!((last.0, last.1, &last.2), ("space.deleted", false, &vec![account(&ada)]));
    assert!(heard.iter().all(|event| event.0 != "space.created" && event.0 != "space.updated"));
}

#[tokio::test]
async fn a_membership_that_arrives_before_the_founding_is_announced_with_it() {
    let founder = TestNode::start();
    let inviter = TestNode::of(&founder.app.config.cluster_key);
    let late = TestNode::of(&founder.app.config.cluster_key);
    let (ada, grace) = (founder.sign_up("Ada").await, founder.sign_up("Grace").await);
    let id = space(&founder, &ada, json!({ "name": "room" })).await;
    founder.copy_to(&inviter).await;
    invite(&inviter, &id, &ada, json!({ "account": grace.id })).await.expect(201);
    // The inviter's log overtakes the founder's.
    let store = &inviter.app.store;
    let read = store.read_log(store.site(), Default::default(), usize::MAX).await.expect("a log");
    late.app.store.apply(read.frames.into_iter().map(Arc::new).collect()).await.expect("applied");
    assert!(events_of(&late, &inviter).await.is_empty());
    founder.copy_to(&late).await;
    let created: Vec<_> =
        events_of(&late, &founder).await.into_iter().filter(|event| event.kind == "space.created").collect();
    let grace: AccountId = grace.id.parse().expect("an id");
    assert!(created[0].accounts.contains(&grace));
}

#[tokio::test]
async fn the_public_functions_agree() {
    let node = TestNode::start();
    let (ada, eve) = (node.sign_up("Ada").await, node.sign_up("Eve").await);
    let id = space(&node, &ada, json!({ "name": "room" })).await;
    let (space, ada, eve): (SpaceId, AccountId, AccountId) =
        (id.parse().expect("an id"), ada.id.parse().expect("an id"), eve.id.parse().expect("an id"));
    node.app
        .store
        .read(move |db| {
            assert_eq!(super::role(db, space, ada)?, Some(Role::Owner));
            assert_eq!(super::role(db, space, eve)?, None);
            assert!(super::visible(db, space, ada)? && !super::visible(db, space, eve)?);
            assert_eq!(super::spaces_of(db, ada)?, [space]);
            assert_eq!(super::members_of(db, space)?, [ada]);
            assert_eq!(super::named(db, ada, "room")?, Some(space));
            assert_eq!(super::named(db, eve, "room")?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .expect("a read");
}

/// Every change of role that can be asked for, against the rules in words.
#[test]
fn role_changes_keep_the_order_of_power() {
    let roles = &[None, Some(Role::Guest), Some(Role::Member), Some(Role::Admin), Some(Role::Owner)];
    for (by, from, to) in roles
        .iter()
        .flat_map(|by| roles.iter().flat_map(move |from| roles.iter().map(move |to| (*by, *from, *to))))
    {
        for other_owner in [false, true] {
            let other = RoleChange {
                visibility: Visibility::Public,
                by,
                own: false,
                from,
                to,
                // Whoever asks is somebody else, so an asking owner is another owner.
                other_owner: other_owner || by == Some(Role::Owner),
                others: by.is_some() || other_owner,
            };
            if other.check().is_ok() && from != to {
                assert!(by >= Some(Role::Admin), "{other:?}");
                assert!(from < Some(Role::Owner) || by == Some(Role::Owner), "{other:?}");
                assert!(to < Some(Role::Owner) || by == Some(Role::Owner), "{other:?}");
            }
            assert!(by < Some(Role::Owner) || other.check().is_ok(), "{other:?}");
            let own = RoleChange { by: from, own: true, others: other_owner, other_owner, ..other };
            if own.check().is_ok() {
                assert!(to <= from || (from.is_none() && to <= Some(Role::Member)), "{own:?}");
            }
            let direct = RoleChange { visibility: Visibility::Direct, ..other };
            assert!(direct.check().is_err());
        }
    }
}

#[test]
fn invitations_never_raise_above_the_inviter() {
    let roles = [Role::Guest, Role::Member, Role::Admin, Role::Owner];
    for (by, to) in roles.iter().flat_map(|by| roles.iter().map(move |to| (*by, *to))) {
        let allowed = rules::check_invitation(Visibility::Private, by, to).is_ok();
        assert_eq!(allowed, by > Role::Guest && to <= by, "{by:?} invites {to:?}");
    }
}
