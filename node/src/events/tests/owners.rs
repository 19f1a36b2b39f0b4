//! What members hear when their space comes to another owner.

use super::*;

/// Owners leave at the same time at two nodes. The row that leaves the space without one has two events, and a client that
/// is cut off between them hears the second one all the same.
#[tokio::test]
async fn i5_members_hear_who_has_come_to_own_their_space() {
    let here = TestNode::start();
    let there = TestNode::of(&here.app.config.cluster_key);
    let (ada, grace, eve) =
        (here.sign_up("Ada").await, here.sign_up("Grace").await, here.sign_up("Eve").await);
    let id = space(&here, &ada).await;
    let member = |who: &str| format!("/v1/spaces/{id}/members/{who}");
    for (who, role) in [(&grace, "owner"), (&eve, "member")] {
        let wish = Some(json!({ "role": role }));
        here.call(Method::PUT, &member(&who.id), Some(&ada.token), wish).await.expect(201);
    }
    here.copy_to(&there).await;
    let mut live = Reader::open(&here, &eve, None).await;
    let mut cut = Reader::open(&there, &eve, None).await;
    here.call(Method::DELETE, &member("me"), Some(&ada.token), None).await.expect(204);
    there.call(Method::DELETE, &member("me"), Some(&grace.token), None).await.expect(204);
    assert_eq!(live.until("member.removed").await.data["account"], ada.id);
    let before = cut.until("member.removed").await;
    assert_eq!(before.data["account"], grace.id);
    there.copy_to(&here).await;
    here.copy_to(&there).await;
    say(&there, &eve, &id, "mine").await;
    there.copy_to(&here).await;
    for reader in [&mut live, &mut cut] {
        let heard = until_a_message(reader).await;
        let [left, heir, message] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(left.kind, "member.removed");
        let said = (heir.kind.as_str(), &heir.data["account"], &heir.data["role"], &heir.data["space"]);
        assert_eq!(said, ("member.added", &json!(eve.id), &json!("owner"), &json!(id)));
        for (cursor, told) in [(&left.id, true), (&before.id, true), (&heir.id, false)] {
            let mut again = Reader::open(&there, &eve, cursor.as_deref()).await;
            let heard = until_a_message(&mut again).await;
            assert_eq!(heard.iter().any(|event| event.data == heir.data), told, "{heard:?}");
            assert_eq!(heard.last().map(|event| &event.data), Some(&message.data));
        }
    }
}

/// What comes up to the next message, and that.
async fn until_a_message(reader: &mut Reader) -> Vec<Heard> {
    let mut heard = Vec::new();
    loop {
        heard.push(reader.next().await.expect("the stream goes on"));
        if heard.last().is_some_and(|event| event.kind == "message.created") {
            heard.retain(|event| event.kind != "ping");
            return heard;
        }
    }
}
