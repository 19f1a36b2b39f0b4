//! Clocks that are wrong: one node's runs ahead, another's behind, by the library libfaketime.

use std::path::Path;

use anyhow::Context;

use super::cluster::Cluster;

/// Where distributions put the library.
const PLACES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
    "/opt/homebrew/lib/faketime/libfaketimeMT.1.dylib",
];
/// How wrong the clocks are, as the library reads it.
const AHEAD: &str = "+600s";
const BEHIND: &str = "-600s";
pub(super) const FAST: usize = 0;
pub(super) const SLOW: usize = 1;

/// Sets the clocks of two nodes for their next start.
pub(super) fn set(cluster: &mut Cluster) -> anyhow::Result<()> {
    let library = PLACES.iter().find(|place| Path::new(place).exists()).context(
        "clock needs the library libfaketime: install it by `apt-get install libfaketime`, or your system's way",
    )?;
    for (node, offset) in [(FAST, AHEAD), (SLOW, BEHIND)] {
        let preload = if cfg!(target_os = "macos") { "DYLD_INSERT_LIBRARIES" } else { "LD_PRELOAD" };
        // Timers must go on as they do on a machine whose clock is merely set wrong.
        let variables = [(preload, *library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        cluster.nodes[node].variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }
    Ok(())
}

/// Sets both clocks right for the next start.
pub(super) fn correct(cluster: &mut Cluster) {
    for node in [FAST, SLOW] {
        cluster.nodes[node].variables.clear();
    }
}
