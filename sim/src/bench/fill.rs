//! Many messages at a node at once, faster than clients could write them.
//!
//! The messages are copies of one that was posted through the API, with another id, number and text, so their rows
//! have the shape that clients' messages have. MyChat's are written while the node is stopped, by its own store with
//! its own schema and local tables, in as many versions as asked. klukai has no such way in, so its messages are
//! posted, as many to a transaction.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use mychat_node::derive::{Derived, schema};
use mychat_node::ids::{MessageId, SpaceId};
use mychat_replication::log::{Change, Version, key};
use mychat_replication::store::{Store, StoreError};

use super::klukai;
use super::marker::Template;
use super::text::scrambled;
use super::wire::Connection;

/// How much of the log is read at a time to find the message to copy.
const PIECE: usize = 64 << 10;

/// A message to make others of.
#[derive(Debug, Clone)]
struct Model {
    space: SpaceId,
    data: Template,
}

/// Writes `count` messages to the stopped node whose database this is.
pub(super) async fn mychat(
    database: &Path,
    count: u64,
    per_version: usize,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let path = database.to_owned();
    let store =
        tokio::task::spawn_blocking(move || Store::open(&path, &schema(), Box::new(Derived::default())))
            .await??;
    let model = model(&store).await?;
    bar.set_length(count);
    let mut next = 1;
    while next <= count {
        let numbers = next..(next + per_version as u64).min(count + 1);
        next = numbers.end;
        let mut model = model.clone();
        let job = move |batch: &mut mychat_replication::store::Batch<'_>| {
            for number in numbers {
                let id = MessageId::from_stamp(batch.stamp(), scrambled(number));
                let data = model.data.varied(number);
                batch.insert("message", vec![model.space.value(), id.value()], data);
            }
            Ok::<_, StoreError>(())
        };
        store.write(job).await?;
        bar.set_position(next - 1);
    }
    store.close().await;
    Ok(())
}

/// The message that was posted last by this node.
async fn model(store: &Store) -> anyhow::Result<Model> {
    let (mut after, mut found) = (Version(0), None);
    loop {
        let read = store.read_log(store.site(), after, PIECE).await?;
        after = read.frames.last().map_or(after, |frame| frame.version);
        let changes = read.frames.into_iter().flat_map(|frame| frame.changes);
        found = changes.filter(|change| &*change.table == "message").last().or(found);
        if read.complete {
            break;
        }
    }
    let Change { key, value, .. } = found.context("the message to copy is not in the log")?;
    let key = key::unpack(&key)?;
    let space = key.first().and_then(SpaceId::from_value).context("a message without a space")?;
    let data = value.as_blob().context("a message without data")?.to_vec();
    Ok(Model { space, data: Template::new(data) })
}

/// Posts `count` messages of `size` bytes to klukai, `per_transaction` at a time.
pub(super) async fn klukai(
    node: SocketAddr,
    count: u64,
    per_transaction: usize,
    size: usize,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(node).await?;
    bar.set_length(count);
    let mut next = 1;
    while next <= count {
        let numbers = next..(next + per_transaction as u64).min(count + 1);
        next = numbers.end;
        let status = connection.status_of(&klukai::post_many(node, size, numbers)).await?;
        ensure!(status == 200, "a transaction was answered with {status}");
        bar.set_position(next - 1);
    }
    Ok(())
}
