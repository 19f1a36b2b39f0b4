//! What a client is told that moves between nodes, over stores without threads: the order in which logs arrive is the
//! test's own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::FutureExt;
use mychat_node::{
    derive::{Derived, schema},
    events::{Cursor, Desk, Reader, Unreadable},
    http::Problem,
    ids::{AccountId, MessageId, SessionId, SpaceId},
    messages::call::{Draft, Text, delete, edit, react, send, unreact},
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
            Store::open_inline(&path, &schema(), Box::new(Derived::default()), Arc::new(System)).unwrap();
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
    let text = |body: &str| Text::new(body.into(), Vec::new());
    a.write(move |batch| {
        spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
        Ok(())
    });
    let draft =
        Draft { author: me, text: text("one"), client_id: None, reply_to: None, thread: None, random: 7 };
    let message = a.write(move |batch| send(batch, space, draft)).id();
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
        let text = |body: &str| Text::new(body.into(), Vec::new());
        a.write(move |batch| {
            spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
            Ok(())
        });
        let draft =
            Draft { author: me, text: text("one"), client_id: None, reply_to: None, thread: None, random: 7 };
        let message = a.write(move |batch| send(batch, space, draft)).id();
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

/// Five nodes that have a space and two messages by the first of them.
struct Scene {
    nodes: [Node; 5],
    me: AccountId,
    space: SpaceId,
    messages: [MessageId; 2],
    _folder: tempfile::TempDir,
}

/// What the first and the second of two writes do to a message.
#[derive(Clone, Copy, Debug)]
enum Change {
    Edits,
    EditsAndDeletes,
    Reacts,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = ["a.db", "b.db", "c.db", "d.db", "e.db"].map(|name| Node::open(folder.path(), name));
        let me = AccountId::from_stamp(Stamp::from_millis(5), 1);
        let space = SpaceId::from_stamp(Stamp::from_millis(6), 1);
        let [a, others @ ..] = &mut nodes;
        a.write(move |batch| {
            spaces::found(batch, space, me, spaces::Visibility::Public, "s".into(), String::new());
            Ok(())
        });
        let messages = [7, 8].map(|random| {
            let text = Text::new("one".into(), Vec::new());
            let draft = Draft { author: me, text, client_id: None, reply_to: None, thread: None, random };
            a.write(move |batch| send(batch, space, draft)).id()
        });
        others.iter_mut().for_each(|other| other.take_all(a));
        Self { nodes, me, space, messages, _folder: folder }
    }

    /// A node changes a message, for the first or for the second time; the second overrules the first.
    fn change(&mut self, node: usize, message: usize, change: Change, second: bool) {
        let (me, space, message) = (self.me, self.space, self.messages[message]);
        let body = if second { "three" } else { "two" };
        let text = Text::new(body.into(), Vec::new());
        let node = &mut self.nodes[node];
        match (change, second) {
            (Change::EditsAndDeletes, true) => {
                node.write(move |batch| delete(batch, space, message, me));
            }
            (Change::Edits | Change::EditsAndDeletes, _) => {
                node.write(move |batch| edit(batch, space, message, me, text));
            }
            (Change::Reacts, _) => {
                node.write(move |batch| react(batch, space, message, me, "x"));
                // It knows of no other than its own.
                if second {
                    node.write(move |batch| unreact(batch, space, message, me, "x"));
                }
            }
        }
    }

    fn take(&mut self, node: usize, from: usize, upto: u64) {
        let site = self.nodes[from].store.site();
        let [node, from] = self.nodes.get_disjoint_mut([node, from]).unwrap();
        node.take(from, site, upto);
    }

    /// What a client is told that opens a stream at a node, while the node takes over logs of others up to some version;
    /// and the cursor that it leaves with, which is that of a sign of life.
    fn visit(&mut self, node: usize, cursor: &str, takes: &[(usize, u64)]) -> (Vec<String>, String) {
        let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
        let mut commits = self.nodes[node].store.commits();
        let desk = Desk::new(self.nodes[node].store.clone());
        let mut reader = desk.open(self.me, session, Some(cursor)).expect("a cursor").expect("a stream");
        assert_eq!(reader.start(), cursor);
        let (mut told, mut last) = (Vec::new(), cursor.to_owned());
        let mut hear = |reader: &mut Reader| {
            loop {
                let missed = reader.is_behind();
                let items = reader.take().expect("the stream goes on");
                for item in &items {
                    last = item.id.clone().expect("a cursor");
                    told.extend((item.kind != "ping").then(|| format!("{} {}", item.kind, item.data)));
                }
                if items.is_empty() && !missed {
                    return;
                }
            }
        };
        hear(&mut reader);
        for (from, upto) in takes {
            self.take(node, *from, *upto);
            desk.tell(Some(std::iter::from_fn(|| commits.try_recv().ok()).collect()));
            hear(&mut reader);
        }
        desk.ping();
        hear(&mut reader);
        (told, last)
    }

    /// All that a node holds.
    fn all(&self, node: usize) -> String {
        Cursor::from(self.nodes[node].store.vector().as_ref()).to_string()
    }
}

/// Whether these are an event about each of so many changes, and no more.
fn says(told: &[String], change: Change, second: bool, times: usize) -> bool {
    let sign = match (change, second) {
        (Change::EditsAndDeletes, true) => "message.deleted",
        (Change::Reacts, false) => "reaction.added",
        (Change::Reacts, true) => "reaction.removed",
        (_, false) => "\"two\"",
        (_, true) => "\"three\"",
    };
    told.len() == times && told.iter().all(|event| event.contains(sign))
}

const CHANGES: [Change; 3] = [Change::Edits, Change::EditsAndDeletes, Change::Reacts];
const ALL: u64 = u64::MAX;

#[test]
fn i5_a_client_that_leaves_the_node_that_told_it_something_older_hears_elsewhere_of_what_it_knew() {
    // Whether the node has what is older before the client comes, or it arrives meanwhile.
    for (change, early) in CHANGES.into_iter().flat_map(|change| [(change, false), (change, true)]) {
        let mut scene = Scene::new();
        scene.change(1, 0, change, false);
        scene.change(0, 0, change, true);
        let knows = scene.all(0);
        if early {
            scene.take(2, 1, ALL);
        }
        let (older, cursor) = scene.visit(2, &knows, if early { &[] } else { &[(1, ALL)] });
        assert!(says(&older, change, false, 1), "{change:?}: {older:?}");
        // From the log of one that has both, or as it arrives at one that has neither.
        scene.take(3, 1, ALL);
        scene.take(3, 0, ALL);
        let (latest, after) = scene.visit(3, &cursor, &[]);
        assert!(says(&latest, change, true, 1), "{change:?}: {latest:?}");
        assert_eq!(after, scene.all(3), "nothing is in doubt any more");
        let (latest, after) = scene.visit(4, &cursor, &[(0, ALL), (1, ALL)]);
        assert!(says(&latest, change, true, 1), "{change:?}: {latest:?}");
        assert_eq!(after, scene.all(4));
        assert_eq!(scene.visit(3, &after, &[]), (Vec::new(), after.clone()));
    }
}

#[test]
fn i5_what_was_told_by_a_node_that_lacked_something_is_in_doubt_where_a_part_of_that_is_lacked() {
    for change in CHANGES {
        let mut scene = Scene::new();
        for message in 0..2 {
            scene.change(1, message, change, false);
        }
        scene.change(0, 0, change, true);
        let first = scene.nodes[0].store.vector().get(scene.nodes[0].store.site()).0;
        scene.change(0, 1, change, true);
        let knows = scene.all(0);
        let (older, cursor) = scene.visit(2, &knows, &[(1, ALL)]);
        assert!(says(&older, change, false, 2), "{change:?}: {older:?}");
        // This one has what overrules one of the two; the rest comes while the client is there.
        scene.take(3, 1, ALL);
        scene.take(3, 0, first);
        let (latest, after) = scene.visit(3, &cursor, &[(0, ALL)]);
        assert!(says(&latest, change, true, 2), "{change:?}: {latest:?}");
        assert_eq!(after, scene.all(3));
        // Or the client leaves this one too.
        scene.take(4, 0, first);
        let (latest, cursor) = scene.visit(4, &cursor, &[(1, ALL)]);
        assert!(says(&latest[..1], change, true, 1), "{change:?}: {latest:?}");
        // What is older of the other is the latest that it has.
        assert!(says(&latest[1..], change, false, 1), "{change:?}: {latest:?}");
        let (latest, after) = scene.visit(3, &cursor, &[]);
        assert!(says(&latest, change, true, 1), "{change:?}: {latest:?}");
        assert_eq!(after, scene.all(3));
    }
}

#[test]
fn i5_what_is_in_doubt_stays_so_over_several_nodes_that_lack_it() {
    for change in CHANGES {
        let mut scene = Scene::new();
        scene.change(1, 0, change, false);
        scene.change(0, 0, change, true);
        let (older, cursor) = scene.visit(2, &scene.all(0), &[(1, ALL)]);
        assert!(says(&older, change, false, 1), "{change:?}: {older:?}");
        // The next one lacks both, and yet another has what is older only.
        let (nothing, cursor) = scene.visit(4, &cursor, &[]);
        assert!(nothing.is_empty(), "{change:?}: {nothing:?}");
        scene.take(3, 1, ALL);
        let (nothing, cursor) = scene.visit(3, &cursor, &[]);
        assert!(nothing.is_empty(), "{change:?}: {nothing:?}");
        scene.take(0, 1, ALL);
        let (latest, after) = scene.visit(0, &cursor, &[]);
        assert!(says(&latest, change, true, 1), "{change:?}: {latest:?}");
        assert_eq!(after, scene.all(0));
    }
}

#[test]
fn i5_a_client_hears_elsewhere_of_an_edit_that_its_node_had_before_the_message() {
    let mut scene = Scene::new();
    let (me, space) = (scene.me, scene.space);
    let text = |body: &str| Text::new(body.into(), Vec::new());
    let draft =
        Draft { author: me, text: text("new"), client_id: None, reply_to: None, thread: None, random: 9 };
    scene.messages[0] = scene.nodes[0].write(move |batch| send(batch, space, draft)).id();
    let knows = scene.all(0);
    scene.take(1, 0, ALL);
    scene.change(1, 0, Change::Edits, false);
    let (nothing, cursor) = scene.visit(2, &knows, &[(1, ALL)]);
    assert!(nothing.is_empty(), "nothing can be said of the edit alone: {nothing:?}");
    let (told, after) = scene.visit(1, &cursor, &[]);
    assert!(says(&told, Change::Edits, false, 1) && told[0].starts_with("message.edited"), "{told:?}");
    assert_eq!(after, scene.all(1));
}

#[test]
fn i5_whoever_was_added_before_the_founding_came_hears_of_the_space() {
    for leaves in [false, true] {
        let mut scene = Scene::new();
        let me = scene.me;
        let founder = AccountId::from_stamp(Stamp::from_millis(5), 2);
        let space = SpaceId::from_stamp(Stamp::from_millis(7), 1);
        scene.nodes[0].write(move |batch| {
            spaces::found(batch, space, founder, spaces::Visibility::Private, "new".into(), String::new());
            Ok(())
        });
        let knows = scene.all(0);
        scene.take(1, 0, ALL);
        scene.nodes[1].write(move |batch| Ok(spaces::join(batch, space, me, spaces::Role::Member)?));
        let takes = if leaves { &[(1, ALL)][..] } else { &[(1, ALL), (0, ALL)] };
        let (mut told, cursor) = scene.visit(2, &knows, takes);
        if leaves {
            assert!(told.is_empty(), "nothing can be said of a space that is not here: {told:?}");
            told = scene.visit(1, &cursor, &[]).0;
        }
        let created: Vec<_> = told.iter().filter(|event| event.starts_with("space.created")).collect();
        assert!(created.len() == 1 && created[0].contains(&space.to_string()), "{told:?}");
    }
}

#[test]
fn i5_a_client_that_was_cut_off_within_versions_of_two_sites_hears_the_rest_of_both() {
    let mut scene = Scene::new();
    let (me, space) = (scene.me, scene.space);
    let before = scene.nodes[0].store.vector().as_ref().clone();
    let draft = |body: &str, random| {
        let text = Text::new(body.into(), Vec::new());
        Draft { author: me, text, client_id: None, reply_to: None, thread: None, random }
    };
    for (node, names) in [(0, ["a-one", "a-two"]), (1, ["b-one", "b-two"])] {
        let drafts = [draft(names[0], 20 + node as u64), draft(names[1], 30 + node as u64)];
        scene.nodes[node].write(move |batch| {
            for draft in drafts {
                send(batch, space, draft)?;
            }
            Ok(())
        });
    }
    // Neither of these nodes has the other's version.
    let mut cursor = Cursor::from(&before).to_string();
    for (node, first) in [(0, "a-one"), (1, "b-one")] {
        let desk = Desk::new(scene.nodes[node].store.clone());
        let session = SessionId::from_stamp(Stamp::from_millis(9), 1);
        let mut reader = desk.open(me, session, Some(&cursor)).expect("a cursor").expect("a stream");
        let items = reader.take().expect("the stream goes on");
        assert!(items[0].data.contains(first), "{items:?}");
        cursor = items[0].id.clone().expect("a cursor");
    }
    scene.take(2, 0, ALL);
    scene.take(2, 1, ALL);
    let (told, after) = scene.visit(2, &cursor, &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    for rest in ["a-two", "b-two"] {
        assert_eq!(told.iter().filter(|event| event.contains(rest)).count(), 1, "{told:?}");
    }
    assert_eq!(after, scene.all(2));
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
        let text = Text::new(body.into(), Vec::new());
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
        let text = Text::new(body.into(), Vec::new());
        let draft = Draft { author: me, text, client_id: None, reply_to: None, thread: None, random: number };
        node.write(move |batch| send(batch, space, draft))
    };
    for _ in 0..30 {
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
