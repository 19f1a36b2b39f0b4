//! What a client is told that moves between nodes, over stores without threads: the order in which logs arrive is the
//! test's own.

use std::{path::Path, sync::Arc};

use futures_util::FutureExt;
use mychat_node::{
    derive::{Derived, schema},
    events::{Cursor, Desk},
    http::Problem,
    ids::{AccountId, SessionId, SpaceId},
    messages::call::{Draft, Text, edit, send},
    spaces,
};
use mychat_replication::{
    clock::Stamp,
    log::{SiteId, Version},
    store::{Batch, Store, System, Worker},
};

struct Node {
    store: Store,
    worker: Worker,
}

impl Node {
    fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let (store, worker) =
            Store::open_inline(&path, &schema(), Box::new(Derived), Arc::new(System)).unwrap();
        Self { store, worker }
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
    let mut reader = desk.open(me, session, Some(&cursor.to_string())).expect("a stream");
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
