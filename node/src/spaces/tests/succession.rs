//! Spaces whose owners go.

use super::*;

/// A space of the first of these people, with the others as members, added in their order.
async fn room(node: &TestNode, people: &[&Person]) -> String {
    let id = space(node, people[0], json!({ "name": "room", "visibility": "public" })).await;
    for other in &people[1..] {
        put_role(node, &id, people[0], &other.id, json!("member")).await.expect(201);
    }
    id
}

async fn close(node: &TestNode, who: &Person, mode: &str) {
    let path = format!("/v1/accounts/me?mode={mode}");
    node.call(Method::DELETE, &path, Some(&who.token), None).await.expect(202);
}

async fn rename(node: &TestNode, space: &str, who: &Person, name: &str) -> Answer {
    let path = format!("/v1/spaces/{space}");
    node.call(Method::PATCH, &path, Some(&who.token), Some(json!({ "name": name }))).await
}

/// Everybody's role, by account.
async fn roles(node: &TestNode, space: &str, who: &Person) -> Vec<(String, String)> {
    let members = node.get(&format!("/v1/spaces/{space}/members"), &who.token).await.expect(200);
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    members["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|member| (text(&member["account"]), text(&member["role"])))
        .collect()
}

async fn role_of(node: &TestNode, space: &str, who: &Person) -> Value {
    let role = node.get(&format!("/v1/spaces/{space}"), &who.token).await.expect(200)["role"].clone();
    let listed = roles(node, space, who).await.into_iter().find(|member| member.0 == who.id);
    assert_eq!(listed.map(|member| json!(member.1)), Some(role.clone()), "the list says the same");
    role
}

/// A second node of the cluster that holds what the first one does.
async fn another(node: &TestNode) -> TestNode {
    let other = TestNode::of(&node.app.config.cluster_key);
    node.copy_to(&other).await;
    other
}

async fn exchange(one: &TestNode, other: &TestNode) {
    one.copy_to(other).await;
    other.copy_to(one).await;
}

/// Whose new roles the rows of `origin` tell to the streams of `node`.
async fn told(node: &TestNode, origin: &TestNode) -> Vec<(Value, Value)> {
    let events = events_of(node, origin).await.into_iter();
    events
        .filter(|event| event.kind == "member.added" && event.space.is_some())
        .map(|event| (event.data["account"].clone(), event.data["role"].clone()))
        .collect()
}

/// The local tables of this domain, line by line.
async fn tables(node: &TestNode) -> Vec<String> {
    node.app
        .store
        .read(|db| {
            let mut lines = Vec::new();
            for query in ["SELECT * FROM local_space ORDER BY id", "SELECT * FROM local_member ORDER BY 1, 2"]
            {
                let mut statement = db.prepare(query)?;
                let width = statement.column_count();
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let values: Result<Vec<_>, _> = (0..width).map(|at| row.get_ref(at)).collect();
                    lines.push(format!("{:?}", values?));
                }
            }
            Ok::<_, StoreError>(lines)
        })
        .await
        .expect("tables")
}

#[tokio::test]
async fn a_space_passes_on_when_its_last_owner_closes_the_account() {
    for mode in ["erase", "deactivate"] {
        let node = TestNode::start();
        let (ada, grace, joan) =
            (node.sign_up("Ada").await, node.sign_up("Grace").await, node.sign_up("Joan").await);
        let id = room(&node, &[&ada, &joan, &grace]).await;
        let alone = room(&node, &[&ada]).await;
        let other = another(&node).await;
        remove(&node, &id, &ada, "me").await.is_problem(409, "last_owner");
        close(&node, &ada, mode).await;
        assert_eq!(told(&node, &node).await.last(), Some(&(json!(joan.id), json!("owner"))), "{mode}");
        exchange(&node, &other).await;
        for node in [&node, &other] {
            assert_eq!(role_of(node, &id, &joan).await, "owner", "{mode}: a member for longer");
            assert_eq!(role_of(node, &id, &grace).await, "member", "{mode}");
            rename(node, &id, &grace, "mine").await.is_problem(403, "forbidden");
            rename(node, &id, &joan, "hall").await.expect(200);
            node.get(&format!("/v1/spaces/{alone}"), &joan.token).await.expect(200);
        }
        // The new owner has the duties of one as well, and those who are closed are nobody to leave the space to.
        remove(&other, &id, &joan, "me").await.is_problem(409, "last_owner");
        put_role(&other, &id, &joan, &grace.id, json!("owner")).await.expect(200);
        remove(&other, &id, &joan, "me").await.expect(204);
        remove(&other, &id, &grace, "me").await.expect(204);
        exchange(&node, &other).await;
        assert_eq!(tables(&node).await, tables(&other).await);
    }
}

#[tokio::test]
async fn an_admin_comes_before_members_and_another_owner_before_all() {
    let node = TestNode::start();
    let (ada, grace, joan, eve) = (
        node.sign_up("Ada").await,
        node.sign_up("Grace").await,
        node.sign_up("Joan").await,
        node.sign_up("Eve").await,
    );
    let id = room(&node, &[&ada, &grace, &joan, &eve]).await;
    put_role(&node, &id, &ada, &joan.id, json!("owner")).await.expect(200);
    put_role(&node, &id, &ada, &eve.id, json!("admin")).await.expect(200);
    close(&node, &ada, "deactivate").await;
    assert_eq!(role_of(&node, &id, &eve).await, "admin", "there is another owner");
    close(&node, &joan, "erase").await;
    assert_eq!(role_of(&node, &id, &eve).await, "owner");
    assert_eq!(role_of(&node, &id, &grace).await, "member");
}

#[tokio::test]
async fn owners_who_leave_at_once_at_two_nodes_leave_an_heir() {
    let here = TestNode::start();
    let (ada, grace, joan, eve) = (
        here.sign_up("Ada").await,
        here.sign_up("Grace").await,
        here.sign_up("Joan").await,
        here.sign_up("Eve").await,
    );
    let id = room(&here, &[&ada, &grace, &eve, &joan]).await;
    put_role(&here, &id, &ada, &grace.id, json!("owner")).await.expect(200);
    let there = another(&here).await;
    remove(&here, &id, &ada, "me").await.expect(204);
    remove(&there, &id, &grace, "me").await.expect(204);
    exchange(&here, &there).await;
    assert_eq!(tables(&here).await, tables(&there).await);
    for node in [&here, &there] {
        assert_eq!(role_of(node, &id, &eve).await, "owner");
        assert_eq!(role_of(node, &id, &joan).await, "member");
        rename(node, &id, &joan, "mine").await.is_problem(403, "forbidden");
        remove(node, &id, &eve, "me").await.is_problem(409, "last_owner");
    }
    // What the heir does first says who it is, and somebody with a higher role than before does not take its place.
    put_role(&there, &id, &eve, &joan.id, json!("admin")).await.expect(200);
    exchange(&here, &there).await;
    assert!(told(&here, &there).await.contains(&(json!(eve.id), json!("owner"))));
    for node in [&here, &there] {
        assert_eq!(role_of(node, &id, &eve).await, "owner");
        assert_eq!(role_of(node, &id, &joan).await, "admin");
    }
    assert_eq!(tables(&here).await, tables(&there).await);
}

#[tokio::test]
async fn owners_who_close_their_accounts_at_once_leave_an_heir() {
    let here = TestNode::start();
    let (ada, grace, joan) =
        (here.sign_up("Ada").await, here.sign_up("Grace").await, here.sign_up("Joan").await);
    let id = room(&here, &[&ada, &grace, &joan]).await;
    put_role(&here, &id, &ada, &grace.id, json!("owner")).await.expect(200);
    let there = another(&here).await;
    close(&here, &ada, "erase").await;
    close(&there, &grace, "deactivate").await;
    exchange(&here, &there).await;
    for node in [&here, &there] {
        assert_eq!(role_of(node, &id, &joan).await, "owner");
    }
    rename(&here, &id, &joan, "hall").await.expect(200);
    assert_eq!(told(&here, &here).await.last(), Some(&(json!(joan.id), json!("owner"))));
    exchange(&here, &there).await;
    assert_eq!(tables(&here).await, tables(&there).await);
}

/// The speakers of an imported log are members whom nobody can be.
#[tokio::test]
async fn nobody_inherits_who_cannot_sign_in() {
    let node = TestNode::start();
    let (ada, grace) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
    let id = room(&node, &[&ada]).await;
    let (space, keys): (SpaceId, _) = (id.parse().expect("an id"), node.app.keys.clone());
    node.app
        .store
        .write(move |batch| {
            let speaker = crate::accounts::found_imported(batch, &keys, "speaker".to_owned(), None);
            super::super::join(batch, space, speaker, Role::Admin).map_err(StoreError::from).map(drop)
        })
        .await
        .expect("a write");
    put_role(&node, &id, &ada, &grace.id, json!("guest")).await.expect(201);
    close(&node, &ada, "erase").await;
    assert_eq!(role_of(&node, &id, &grace).await, "owner");
}
