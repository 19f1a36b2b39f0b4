//! What a client is told that moves between nodes, over stores without threads: the order in which logs arrive is the
//! test's own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::FutureExt;
use mychat_node::{
    derive::{Derived, schema},
    events::{Cursor, Desk, Unreadable},
    http::Problem,
    ids::{AccountId, SessionId, SpaceId},
    messages::call::{Draft, Text, delete, edit, send},
    spaces,
};
use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version},
    store::{Batch, Store, System, Worker},
};

struct Node {
    path: PathBuf,
    store: Store,
    worker: Worker,
}

impl Node {
    fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let (store, worker) =
            Store::open_inline(&path, &schema(), Box::new(Derived), Arc::new(System)).unwrap();
        Self { path, store, worker }
    }

    /// Starts it anew.
    fn reopen(self) -> Self {
        let Self { path, store, worker } = self;
        drop((store, worker));
        Self::open(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap())
    }

    /// Starts it anew, under another site id.
    fn renew(self) -> Self {
        let mut node = self.reopen();
        {
            let mut renewal = Box::pin(node.store.renew_site());
            assert!((&mut renewal).now_or_never().is_none(), "the worker has not run yet");
            node.worker.work();
            renewal.now_or_never().expect("renewed").expect("renewed");
        }
        node
    }

    /// Takes over all that another node has.
    fn take_all(&mut self, from: &Self) {
        while !self.store.vector().covers(&from.store.vector()) {
            for (site, _) in from.store.vector().iter() {
                self.take(from, site, u64::MAX);
            }
        }
    }

    fn write<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Batch<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> T {
        let mut write = Box::pin(self.store.write(job));
        assert!((&mut write).now_or_never().is_none(), "the worker has not run yet");
        self.worker.work();
        write.now_or_never().expect("written").expect("accepted").value
    }

    /// Takes over a log of another node's up to a version.
    fn take(&mut self, from: &Self, site: SiteId, upto: u64) {
        let after = self.store.vector().get(site);
        let read = from.store.read_log(site, after, 1 << 20).now_or_never().expect("read").expect("read");
        let frames = read.frames.into_iter().filter(|frame| frame.version <= Version(upto));
        let mut apply = Box::pin(self.store.apply(frames.map(Arc::new).collect()));
        assert!((&mut apply).now_or_never().is_none(), "the worker has not run yet");
        self.worker.work();
        apply.now_or_never().expect("applied").expect("applied");
    }
}

#[test]
fn a_client_that_knows_a_message_hears_of_an_edit_that_came_to_its_next_node_before_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, mut b, mut c] = ["a.db", "b.db", "c.db"].map(|name| Node::open(folder.path(), name));
    let me = AccountId::from_stamp(Stamp::from_millis(5), 1);
    let space = SpaceId::from_stamp(Stamp::from_millis(6), 1);
    let text = |body: &str| Text { body: body.into(), html: String::new(), mentions: Vec::new() };
    a.write(move |batch| {
        spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
        Ok(())
    });
    let draft =
        Draft { author: me, text: text("one"), client_id: None, reply_to: None, thread: None, random: 7 };
    let message = a.write(move |batch| send(batch, space, draft)).id;
    let site = a.store.site();
    b.take(&a, site, 2);
    let two = text("two");
    b.write(move |batch| edit(batch, space, message, me, two));

    // The next node has the space and the edit, and not yet the message; the client has seen all but the edit.
    c.take(&a, site, 1);
    c.take(&b, b.store.site(), u64::MAX);
    let mut commits = c.store.commits();
    let desk = Desk::new(c.store.clone());
    let cursor = Cursor::from(a.store.vector().as_ref());
    let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
    let mut reader = desk.open(me, session, Some(&cursor.to_string())).expect("a cursor").expect("a stream");
    while reader.is_behind() {
        assert_eq!(
            reader.take().expect("the stream goes on").len(),
            0,
            "nothing can be said of the edit alone"
        );
    }
    c.take(&a, site, 2);
    desk.tell(Some(vec![commits.try_recv().expect("a commit")]));
    let told = reader.take().expect("the stream goes on");
    let told: Vec<&str> = told.iter().map(|item| std::str::from_utf8(&item.wire).unwrap()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("event: message.edited") && told[0].contains("\"two\""), "{told:?}");
}

#[test]
fn a_client_that_was_told_of_an_older_edit_hears_again_of_the_one_that_it_knew() {
    for deletes in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let [mut a, mut b, mut c] = ["a.db", "b.db", "c.db"].map(|name| Node::open(folder.path(), name));
        let me = AccountId::from_stamp(Stamp::from_millis(5), 1);
        let space = SpaceId::from_stamp(Stamp::from_millis(6), 1);
        let text = |body: &str| Text { body: body.into(), html: String::new(), mentions: Vec::new() };
        a.write(move |batch| {
            spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
            Ok(())
        });
        let draft =
            Draft { author: me, text: text("one"), client_id: None, reply_to: None, thread: None, random: 7 };
        let message = a.write(move |batch| send(batch, space, draft)).id;
        let site = a.store.site();
        b.take(&a, site, 2);
        c.take(&a, site, 2);
        let (two, three) = (text("two"), text("three"));
        b.write(move |batch| edit(batch, space, message, me, two));
        a.write(move |batch| match deletes {
            true => delete(batch, space, message, me),
            false => edit(batch, space, message, me, three).map(drop),
        });

        // The client has seen what was last, and comes to a node that has not.
        let mut commits = c.store.commits();
        let desk = Desk::new(c.store.clone());
        let cursor = Cursor::from(a.store.vector().as_ref());
        let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
        let mut reader =
            desk.open(me, session, Some(&cursor.to_string())).expect("a cursor").expect("a stream");
        while reader.is_behind() {
            assert_eq!(reader.take().expect("the stream goes on").len(), 0);
        }
        let mut told = |c: &mut Node, from: &Node, site| {
            c.take(from, site, u64::MAX);
            desk.tell(Some(vec![commits.try_recv().expect("a commit")]));
            let told = reader.take().expect("the stream goes on");
            told.iter().map(|item| String::from_utf8_lossy(&item.wire).into_owned()).collect::<Vec<_>>()
        };
        let older = told(&mut c, &b, b.store.site());
        assert!(older.len() == 1 && older[0].contains("\"two\""), "{older:?}");
        let latest = told(&mut c, &a, site);
        let says = if deletes { "event: message.deleted" } else { "\"three\"" };
        assert!(latest.len() == 1 && latest[0].contains(says), "{latest:?}");
    }
}

#[test]
fn i5_a_commit_that_does_not_follow_what_was_told_brings_what_is_between() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Node::open(folder.path(), "a.db");
    let me = AccountId::from_stamp(Stamp::from_millis(5), 1);
    let space = SpaceId::from_stamp(Stamp::from_millis(6), 1);
    a.write(move |batch| {
        spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
        Ok(())
    });
    let desk = Desk::new(a.store.clone());
    let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
    let mut reader = desk.open(me, session, None).expect("a cursor").expect("a stream");
    assert_eq!(reader.take().map(|told| told.len()), Some(0));
    let mut commits = a.store.commits();
    for body in ["one", "two", "three"] {
        let text = Text { body: body.into(), html: String::new(), mentions: Vec::new() };
        let draft = Draft { author: me, text, client_id: None, reply_to: None, thread: None, random: 7 };
        a.write(move |batch| send(batch, space, draft));
    }
    let commits: Vec<_> = std::iter::from_fn(|| commits.try_recv().ok()).collect();
    assert_eq!(commits.len(), 3);
    desk.tell(Some(vec![Arc::clone(&commits[0])]));
    desk.tell(Some(vec![Arc::clone(&commits[2])]));
    let told = reader.take().expect("the stream goes on");
    let bodies: Vec<&str> = told.iter().map(|item| std::str::from_utf8(&item.wire).unwrap()).collect();
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    for (told, body) in bodies.iter().zip(["\"one\"", "\"two\"", "\"three\""]) {
        assert!(told.contains(body), "{bodies:?}");
    }
}

#[test]
fn i5_a_cursor_without_retired_sites_is_good_at_every_node_that_knows_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, mut b, mut c] = ["a.db", "b.db", "c.db"].map(|name| Node::open(folder.path(), name));
    let me = AccountId::from_stamp(Stamp::from_millis(5), 1);
    let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
    let space = SpaceId::from_stamp(Stamp::from_millis(6), 1);
    a.write(move |batch| {
        spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
        Ok(())
    });
    let mut number = 0;
    let mut say = |node: &mut Node, body: &str| {
        number += 1;
        let text = Text { body: body.into(), html: String::new(), mentions: Vec::new() };
        let draft = Draft { author: me, text, client_id: None, reply_to: None, thread: None, random: number };
        node.write(move |batch| send(batch, space, draft))
    };
    for _ in 0..12 {
        a = a.renew();
        say(&mut a, "early");
    }
    b.take_all(&a);
    c.take_all(&a);
    // What a client has seen that opens a stream now.
    let now = |node: &Node| {
        let reader = Desk::new(node.store.clone()).open(me, session, None).unwrap().expect("a stream");
        reader.start().to_owned()
    };
    let missed = |node: &Node, cursor: &str| {
        let mut reader = Desk::new(node.store.clone()).open(me, session, Some(cursor))?.expect("a stream");
        let mut bodies = Vec::new();
        while reader.is_behind() {
            for item in reader.take().expect("the stream goes on") {
                let data: serde_json::Value = serde_json::from_str(&item.data).expect("JSON");
                bodies.push(data["body"].as_str().expect("a message").to_owned());
            }
        }
        Ok::<_, Unreadable>(bodies)
    };
    let before = now(&a);
    let whole = Cursor::from(a.store.vector().as_ref()).to_string();
    assert!(before.len() < whole.len() / 2, "{before} of {whole}");
    a = a.renew();
    say(&mut a, "late");
    let after = now(&a);
    say(&mut a, "last");
    b.take_all(&a);
    for cursor in [&before, &whole] {
        assert_eq!(missed(&a, cursor).unwrap(), ["late", "last"]);
        assert_eq!(missed(&b, cursor).unwrap(), ["late", "last"]);
        assert_eq!(missed(&c, cursor).unwrap(), [""; 0]);
    }
    assert_eq!(missed(&b, &after).unwrap(), ["last"]);
    // A node that has not heard of the last retirement can't tell what the cursor leaves out, and says so.
    assert_eq!(missed(&c, &after), Err(Unreadable::Unknown));
    c.take_all(&a);
    assert_eq!(missed(&c, &after).unwrap(), ["last"]);
    // Nor does it matter whether a node knows it from before its start.
    let a = a.reopen();
    assert_eq!(missed(&a, &after).unwrap(), ["last"]);
}
