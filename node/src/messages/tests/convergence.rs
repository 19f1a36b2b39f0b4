//! Convergence: whatever is stated where, and in whatever interleaving the sites' logs travel, all nodes that hold
//! the same logs have the same local tables; of spaces and notifications too, since messages stand on them.

use std::sync::Arc;

use mychat_replication::{
    clock::Stamp,
    log::{SiteId, VersionVector},
    store::{Batch, Store, StoreError},
};
use proptest::prelude::*;
use rusqlite::Connection;

use super::super::{
    facts::{self, Purge, Revision, Sent},
    history,
    leftovers::overwrite_deleted,
    resource::{self, Message},
    store,
};
use crate::{
    derive::{Derived, schema},
    ids::{AccountId, MessageId, SpaceId},
    notifications, spaces,
};

const NODES: usize = 3;

/// What a node states, straight past the rules: they are about single nodes, and conflicts are what is wanted here.
#[derive(Debug, Clone)]
enum Action {
    Found,
    SetRole { account: u8, role: Option<u8> },
    Change { setting: u8 },
    Direct { by: u8 },
    Send { author: u8, client_id: Option<u8> },
    Edit { message: prop::sample::Index },
    Delete { message: prop::sample::Index },
    React { message: prop::sample::Index, account: u8, on: bool },
    Purge { since: prop::sample::Index, until: prop::sample::Index },
    Overwrite,
    Read { account: u8, message: prop::sample::Index },
    Exchange { from: usize, site: prop::sample::Index, bytes: usize },
}

fn actions() -> impl Strategy<Value = Vec<(usize, Action)>> {
    use Action::{Change, Delete, Direct, Edit, Exchange, Found, React, Send, SetRole};
    let message = any::<prop::sample::Index>;
    let action = prop_oneof![
        1 => Just(Found),
        3 => (0u8..3, prop::option::of(0u8..4)).prop_map(|(account, role)| SetRole { account, role }),
        2 => (0u8..12).prop_map(|setting| Change { setting }),
        1 => (0u8..2).prop_map(|by| Direct { by }),
        6 => (0u8..2, prop::option::of(0u8..3)).prop_map(|(author, client_id)| Send { author, client_id }),
        3 => message().prop_map(|message| Edit { message }),
        2 => message().prop_map(|message| Delete { message }),
        3 => (message(), 0u8..2, any::<bool>()).prop_map(|(message, account, on)| React { message, account, on }),
        1 => (message(), message()).prop_map(|(since, until)| Action::Purge { since, until }),
        1 => Just(Action::Overwrite),
        2 => (0u8..2, message()).prop_map(|(account, message)| Action::Read { account, message }),
        8 => (0..NODES, any::<prop::sample::Index>(), prop_oneof![Just(1), Just(1 << 20)])
            .prop_map(|(from, site, bytes)| Exchange { from, site, bytes }),
    ];
    prop::collection::vec((0..NODES, action), 1..60)
}

fn account(number: u8) -> AccountId {
    AccountId::from_stamp(Stamp::from_millis(1), u64::from(number))
}

fn the_space() -> SpaceId {
    SpaceId::from_stamp(Stamp::from_millis(2), 0)
}

struct Nodes {
    stores: Vec<Store>,
    _folder: tempfile::TempDir,
}

impl Nodes {
    fn open(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = (0..count)
            .map(|number| {
                let path = folder.path().join(format!("{number}.db"));
                Store::open(&path, &schema(), Box::new(Derived::default())).expect("a database")
            })
            .collect();
        Self { stores, _folder: folder }
    }

    /// Carries some of a site's log from one node to another.
    async fn exchange(&self, from: usize, to: usize, site: SiteId, bytes: usize) {
        let after = self.stores[to].vector().get(site);
        let read = self.stores[from].read_log(site, after, bytes).await.expect("a log");
        let frames = read.frames.into_iter().map(Arc::new).collect();
        let applied = self.stores[to].apply(frames).await.expect("frames");
        assert_eq!(applied.quarantined, 0);
    }

    /// Carries everything everywhere.
    async fn level(&self) {
        let sites: Vec<SiteId> = self.stores.iter().map(Store::site).collect();
        let mut all = VersionVector::new();
        self.stores.iter().for_each(|store| all.merge(&store.vector()));
        while self.stores.iter().any(|store| *store.vector() != all) {
            for to in 0..self.stores.len() {
                for from in 0..self.stores.len() {
                    for site in &sites {
                        self.exchange(from, to, *site, 1 << 20).await;
                    }
                }
            }
        }
    }

    async fn act(&self, at: usize, action: Action) {
        if let Action::Exchange { from, site, bytes } = action {
            let site = self.stores[site.index(NODES)].site();
            return self.exchange(from, at, site, bytes).await;
        }
        if let Action::Overwrite = action {
            overwrite_deleted(&self.stores[at]).await.expect("overwritten");
            return;
        }
        self.stores[at].write(move |batch| state(batch, action)).await.expect("a write");
    }
}

fn state(batch: &mut Batch<'_>, action: Action) -> Result<(), StoreError> {
    let space = the_space();
    let by = account(0);
    match action {
        Action::Found => {
            let visibility = spaces::Visibility::Public;
            spaces::found(batch, space, by, visibility, "space".into(), String::new());
        }
        Action::SetRole { account: number, role } => {
            let role = role.map(|role| {
                [spaces::Role::Guest, spaces::Role::Member, spaces::Role::Admin, spaces::Role::Owner]
                    [usize::from(role)]
            });
            spaces::testing::set_role(batch, space, account(number), role, by);
        }
        Action::Change { setting } => spaces::testing::change(batch, space, by, setting),
        Action::Direct { by } => {
            spaces::testing::found_direct(batch, vec![account(0), account(1)], account(by))
        }
        Action::Send { author, client_id } => {
            let id = MessageId::from_stamp(batch.stamp(), rand::random());
            let sent = Sent {
                author: account(author),
                erased: false,
                body: id.to_string(),
                client_id: client_id.map(|number| number.to_string()),
                reply_to: None,
                thread: None,
                mentions: vec![by],
            };
            facts::send(batch, space, id, &sent);
        }
        Action::Edit { message } => {
            if let Some((id, _)) = pick(batch.connection(), message)? {
                let body = format!("edited at {}", batch.site());
                facts::revise(batch, space, id, &Revision::Edited { by, body, mentions: vec![by] });
            }
        }
        Action::Delete { message } => {
            if let Some((id, sent)) = pick(batch.connection(), message)? {
                facts::delete(batch, space, id, &sent, by)?;
            }
        }
        Action::React { message, account: number, on } => {
            if let Some((id, _)) = pick(batch.connection(), message)? {
                facts::react(batch, space, id, account(number), "👍", on);
            }
        }
        Action::Purge { since, until } => {
            if let (Some((since, _)), Some((until, _))) =
                (pick(batch.connection(), since)?, pick(batch.connection(), until)?)
            {
                let (since, until) = (since.stamp().millis(), until.stamp().millis());
                facts::purge(batch, space, Purge { by, since, until });
            }
        }
        Action::Read { account: number, message } => {
            if let Some((id, _)) = pick(batch.connection(), message)? {
                notifications::testing::read(batch, account(number), space, id)?;
            }
        }
        Action::Exchange { .. } | Action::Overwrite => {}
    }
    Ok(())
}

/// One of the messages that the node has.
fn pick(db: &Connection, index: prop::sample::Index) -> rusqlite::Result<Option<(MessageId, Sent)>> {
    let ids: Vec<MessageId> = db
        .prepare_cached("SELECT id FROM message WHERE data IS NOT NULL ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if ids.is_empty() {
        return Ok(None);
    }
    let id = ids[index.index(ids.len())];
    Ok(store::row(db, the_space(), id)?.map(|sent| (id, sent)))
}

/// The ordered content of the domains' tables, local and replicated.
async fn dump(store: &Store) -> Vec<String> {
    const TABLES: [&str; 16] = [
        "space",
        "space_change",
        "membership",
        "message",
        "message_revision",
        "reaction",
        "message_purge",
        "read_mark",
        "local_space",
        "local_member",
        "local_client_id",
        "local_duplicate",
        "local_message_state",
        "local_reaction",
        "local_read",
        "invitation_use",
    ];
    let read = |db: &Connection| {
        let mut lines = Vec::new();
        for table in TABLES {
            let mut rows = db.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = rows.column_count();
            let mut rows = rows.query([])?;
            let mut of_table = Vec::new();
            while let Some(row) = rows.next()? {
                let values: Vec<String> = (0..columns)
                    .map(|column| Ok(format!("{:?}", row.get_ref(column)?)))
                    .collect::<rusqlite::Result<_>>()?;
                of_table.push(format!("{table}: {}", values.join(" | ")));
            }
            of_table.sort();
            lines.extend(of_table);
        }
        Ok::<_, StoreError>(lines)
    };
    store.read(read).await.expect("a dump")
}

/// What the API shows of every message.
async fn shown(store: &Store) -> Vec<String> {
    let read = |db: &Connection| {
        let ids: Vec<MessageId> = db
            .prepare("SELECT id FROM message ORDER BY id")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut shown = Vec::new();
        for id in ids {
            let message = resource::resource(db, the_space(), id)?;
            assert!(message.as_ref().is_none_or(consistent), "{message:?}");
            shown.push(format!("{message:?}"));
        }
        Ok::<_, StoreError>(shown)
    };
    store.read(read).await.expect("messages")
}

/// A deleted message shows nothing of what was said.
fn consistent(message: &Message) -> bool {
    !message.deleted || (message.body.is_empty() && message.html.is_none() && message.mentions.is_empty())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nodes_with_the_same_logs_are_equal(actions in actions()) {
        runtime().block_on(async {
            // The last node states nothing and hears everything at the end, from what the others still have.
            let nodes = Nodes::open(NODES + 1);
            for (at, action) in actions {
                nodes.act(at, action).await;
            }
            nodes.level().await;
            // Two do so without having heard of each other, and leave nothing to do.
            for store in &nodes.stores[..2] {
                overwrite_deleted(store).await.expect("overwritten");
            }
            nodes.level().await;
            assert_eq!(overwrite_deleted(&nodes.stores[2]).await.expect("nothing to do"), 0);
            let (tables, messages) = (dump(&nodes.stores[0]).await, shown(&nodes.stores[0]).await);
            for store in &nodes.stores[1..] {
                assert_eq!(tables, dump(store).await);
                assert_eq!(messages, shown(store).await);
            }
        });
    }
}

/// A message of `author` with a client id.
fn a_message(author: u8, client_id: &str, body: &str) -> Sent {
    Sent {
        author: account(author),
        erased: false,
        body: body.into(),
        client_id: Some(client_id.into()),
        reply_to: None,
        thread: None,
        mentions: Vec::new(),
    }
}

async fn send(store: &Store, sent: Sent) -> MessageId {
    let job = move |batch: &mut Batch<'_>| {
        let id = MessageId::from_stamp(batch.stamp(), rand::random());
        facts::send(batch, the_space(), id, &sent);
        Ok::<_, StoreError>(id)
    };
    store.write(job).await.expect("a write").value
}

async fn show(store: &Store, id: MessageId) -> Option<Message> {
    store
        .read(move |db| Ok::<_, StoreError>(resource::resource(db, the_space(), id)?))
        .await
        .expect("a message")
}

#[test]
fn a_client_id_used_at_two_nodes_is_one_message() {
    runtime().block_on(async {
        let nodes = Nodes::open(2);
        let first = send(&nodes.stores[0], a_message(0, "same", "from the first node")).await;
        let second = send(&nodes.stores[1], a_message(0, "same", "from the second")).await;
        let other = send(&nodes.stores[1], a_message(1, "same", "of somebody else")).await;
        nodes.level().await;
        for store in &nodes.stores {
            let (winner, loser) = (first.min(second), first.max(second));
            assert_eq!(show(store, loser).await.map(|message| message.id), Some(winner));
            let listed = store
                .read(|db| {
                    let span = history::Span::ALL;
                    Ok::<_, StoreError>(history::page(db, the_space(), span, Default::default(), 10)?)
                })
                .await
                .expect("a page");
            let ids: Vec<MessageId> = listed.items.iter().map(|message| message.id).collect();
            assert_eq!(ids, [winner.min(other), winner.max(other)]);
        }
    });
}

#[test]
fn a_deletion_beats_a_later_edit_and_leaves_no_text_of_what_was_known() {
    runtime().block_on(async {
        let nodes = Nodes::open(2);
        let secret = "a text that has to go";
        let id = send(&nodes.stores[0], a_message(0, "c", secret)).await;
        let edit = |body: &'static str| {
            move |batch: &mut Batch<'_>| {
                let revision = Revision::Edited { by: account(0), body: body.into(), mentions: Vec::new() };
                facts::revise(batch, the_space(), id, &revision);
                Ok::<_, StoreError>(())
            }
        };
        nodes.stores[0].write(edit(secret)).await.expect("an edit");
        nodes.level().await;
        let delete = move |batch: &mut Batch<'_>| {
            let sent = store::row(batch.connection(), the_space(), id)?.expect("the message");
            Ok::<_, StoreError>(facts::delete(batch, the_space(), id, &sent, account(0))?)
        };
        // Both delete, and one edits, before they hear of each other.
        nodes.stores[1].write(delete).await.expect("a deletion");
        nodes.stores[0].write(delete).await.expect("a deletion");
        nodes.stores[0].write(edit("too late")).await.expect("an edit");
        nodes.level().await;
        for store in &nodes.stores {
            let message = show(store, id).await.expect("a tombstone");
            assert!(message.deleted && message.author == account(0) && consistent(&message), "{message:?}");
            let tables = dump(store).await.join("\n");
            let bytes = format!("{:?}", secret.as_bytes());
            assert!(!tables.contains(bytes.trim_matches(['[', ']'])), "the text is still there");
        }
        assert_eq!(dump(&nodes.stores[0]).await, dump(&nodes.stores[1]).await);
    });
}

/// The extension asks for a key's number by its columns, whatever their order in the index.
#[test]
fn keys_are_found_in_the_order_of_ids() {
    runtime().block_on(async {
        let nodes = Nodes::open(1);
        let id = send(&nodes.stores[0], a_message(0, "c", "text")).await;
        let (columns, plan, number) = nodes.stores[0]
            .read(move |db| {
                let columns: Vec<String> = db
                    .prepare("SELECT name FROM pragma_index_info('message__crsql_pks_pks') ORDER BY seqno")?
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                let find = "SELECT __crsql_key FROM message__crsql_pks WHERE space = ?1 AND id = ?2";
                let plan: String =
                    db.query_row(&format!("EXPLAIN QUERY PLAN {find}"), (the_space(), id), |row| row.get(3))?;
                let number: i64 = db.query_row(find, (the_space(), id), |row| row.get(0))?;
                Ok::<_, StoreError>((columns, plan, number))
            })
            .await
            .expect("a read");
        assert_eq!((columns, number), (vec!["id".to_owned(), "space".to_owned()], 1));
        assert!(plan.ends_with("COVERING INDEX message__crsql_pks_pks (id=? AND space=?)"), "{plan}");
    });
}

#[test]
fn sql_finds_author_and_presence_in_packed_messages() {
    let sent = a_message(7, "c", "text");
    for (sent, present) in [(sent.clone(), true), (sent.tombstone(), false)] {
        let db = Connection::open_in_memory().expect("a database");
        let sql = format!("SELECT {}, {} FROM (SELECT ?1 AS data)", facts::AUTHOR_SQL, facts::PRESENT_SQL);
        let found: (AccountId, bool) = db
            .query_row(&sql, [crate::packed::encode(&sent)], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("a row");
        assert_eq!(found, (account(7), present));
    }
}

#[test]
fn of_two_facts_the_later_holds() {
    runtime().block_on(async {
        let nodes = Nodes::open(2);
        let id = send(&nodes.stores[0], a_message(0, "c", "text")).await;
        nodes.level().await;
        // On before off, and off before on, at nodes that have not heard of each other. The same process runs both,
        // so the second one's stamp is the later, or of the same millisecond: then one more makes it so.
        for (first, second) in [(true, false), (false, true)] {
            let react = |on| {
                move |batch: &mut Batch<'_>| {
                    facts::react(batch, the_space(), id, account(1), "👍", on);
                    Ok::<_, StoreError>(batch.stamp())
                }
            };
            let earlier = nodes.stores[0].write(react(first)).await.expect("a write").value;
            while nodes.stores[1].write(react(second)).await.expect("a write").value <= earlier {}
            nodes.level().await;
            for store in &nodes.stores {
                let reactions = show(store, id).await.expect("the message").reactions;
                assert_eq!(reactions.contains_key("👍"), second);
            }
        }
    });
}
