//! Three nodes in a folder, and the network between them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::{RngExt, rngs::StdRng};

use super::net::Net;
use super::node::Node;
use super::ports::Ports;

/// The nodes' regions, which are also their names.
pub(super) const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// The nodes and their network. Dropping it kills and ends them.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    _ports: Ports,
}

impl Cluster {
    /// Puts everything in place; no node runs yet.
    pub(super) fn prepare(folder: &Path, delay: Duration, chance: &mut StdRng) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program can't be found")?;
        let key = folder.join("cluster.key");
        make_key(&program, &key)?;
        let count = REGIONS.len();
        let ports = Ports::take(2 * count, chance)?;
        let mesh: Vec<u16> = (0..count).map(|node| ports.nth(count + node)).collect();
        let net = Net::start(&mesh, delay, chance.random())?;
        let node = |(at, region): (usize, &&str)| {
            let url = format!("http://127.0.0.1:{}", ports.nth(at));
            let mut args = vec!["node".to_owned()];
            let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
            flag("--region", (*region).to_owned());
            flag("--http", format!("127.0.0.1:{}", ports.nth(at)));
            flag("--public-url", url.clone());
            flag("--mesh", format!("127.0.0.1:{}", mesh[at]));
            flag("--mesh-public", net.face(at).to_string());
            for other in (0..count).filter(|other| *other != at) {
                flag("--peer", net.face(other).to_string());
            }
            flag("--cluster-key", key.display().to_string());
            Node::new(region, url, folder, &program, args)
        };
        let nodes = REGIONS.iter().enumerate().map(node).collect();
        Ok(Self { nodes, net, _ports: ports })
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }
}

/// By the program's own command.
fn make_key(program: &Path, file: &Path) -> anyhow::Result<()> {
    let made = Command::new(program).args(["cluster", "key"]).output();
    let made = made.with_context(|| format!("{} can't be started", program.display()))?;
    ensure!(made.status.success(), "`cluster key` failed: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(file, made.stdout).with_context(|| format!("{} can't be written", file.display()))
}
