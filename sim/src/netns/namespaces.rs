//! The regions' network namespaces, each with one device that leads to the others.
//!
//! Made with `ip` of iproute2, so that everybody can see them and enter them with `ip netns exec`.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::CannotRunHere;
use super::runs::{self, Beginning, Run};
use super::topology::Subnet;

/// The name of the device within each region.
const DEVICE: &str = "wan";
/// Packets that the system keeps for a device until they are read. Its own 500 are gone in a burst of half a
/// megabyte, and what does not fit it drops without a word.
const DEVICE_QUEUE: u32 = 20_000;

/// Namespaces of a run. Dropping them removes them.
pub(super) struct Namespaces {
    names: Vec<String>,
}

/// Fails unless this process may make namespaces and devices.
pub(super) fn check() -> Result<(), CannotRunHere> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    let has = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    if !has {
        return Err(CannotRunHere::because(if rustix::process::geteuid().is_root() {
            "needs the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN, which root does not have here (in a container: \
             --cap-add NET_ADMIN --cap-add SYS_ADMIN --device /dev/net/tun)"
        } else {
            "needs root, for network namespaces and TUN devices: run it with sudo"
        }));
    }
    match Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(CannotRunHere::because(format!("needs the command ip ({error}): install iproute2")))
        }
    }
}

impl Namespaces {
    /// Removes what killed runs have left behind; returns how many namespaces that were.
    pub(super) fn clear(beginning: &Beginning) -> anyhow::Result<usize> {
        let mut cleared = 0;
        for name in runs::left_over(beginning)? {
            match ip(&["netns", "del", &name], "") {
                Ok(_) => cleared += 1,
                // Its run has ended by itself a moment ago, and removed it.
                Err(_) if !Path::new(runs::NAMESPACES).join(&name).exists() => {}
                Err(error) => return Err(error.context(format!("{name}, left by an earlier run"))),
            }
        }
        Ok(cleared)
    }

    /// None yet.
    pub(super) fn new() -> Self {
        Self { names: Vec::new() }
    }

    /// Makes one with a device that has this address and leads to the others.
    pub(super) fn add(
        &mut self,
        run: &Run,
        region: &str,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> anyhow::Result<SyncDevice> {
        let name = run.namespace(region);
        ip(&["netns", "add", &name], "")?;
        self.names.push(name.clone());
        let device = within(&name, || device(DEVICE))??;
        let setup = format!(
            "link set lo up\nlink set {DEVICE} addrgenmode none\nlink set {DEVICE} up\naddr add {address}/{} dev {DEVICE}\n",
            subnet.prefix()
        );
        ip(&["-n", &name, "-batch", "-"], &setup)?;
        Ok(device)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "del", name], "") {
                tracing::warn!(%error, name, "a network namespace can't be removed; the next run tries again");
            }
        }
    }
}

/// The machine's own device. It goes with the file that is returned.
pub(super) fn host_device(run: &Run, subnet: Subnet) -> anyhow::Result<SyncDevice> {
    let name = run.host_device();
    let made = device(&name)?;
    let setup = format!(
        "link set {name} addrgenmode none\nlink set {name} up\naddr add {}/{} dev {name}\n",
        subnet.host(),
        subnet.prefix()
    );
    ip(&["-batch", "-"], &setup)?;
    Ok(made)
}

/// Whether the machine has no route within this network yet.
pub(super) fn is_free(subnet: Subnet) -> anyhow::Result<bool> {
    let within = ip(&["-4", "route", "show", "table", "all", "root", &subnet.to_string()], "")?;
    Ok(within.stdout.trim_ascii().is_empty())
}

/// Does something as a thread of this namespace.
pub(super) fn within<T: Send>(namespace: &str, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    // A thread of its own, which ends with it: the others stay where they are.
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(namespace)?;
            anyhow::Ok(what())
        });
        inside.join().unwrap_or_else(|_| bail!("a thread has panicked in {namespace}"))
    })
}

/// Moves the calling thread into a namespace.
pub(super) fn enter(namespace: &str) -> anyhow::Result<()> {
    let file = Path::new(runs::NAMESPACES).join(namespace);
    let open = File::open(&file).with_context(|| format!("{} can't be opened", file.display()))?;
    move_into_link_name_space(open.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("{namespace} can't be entered"))
}

fn device(name: &str) -> Result<SyncDevice, CannotRunHere> {
    let made = DeviceBuilder::new()
        .name(name)
        .with(|builder| {
            builder.tx_queue_len(DEVICE_QUEUE);
        })
        .enable(false)
        .build_sync();
    made.map_err(|error| {
        CannotRunHere::because(format!(
            "can't make a TUN device ({error}): is there /dev/net/tun? (modprobe tun; in a container: \
             --device /dev/net/tun)"
        ))
    })
}

/// Runs `ip`. Its errors have what it says.
fn ip(args: &[&str], input: &str) -> anyhow::Result<Output> {
    let what = || format!("ip {}", args.join(" "));
    let run = || -> io::Result<Output> {
        let mut command = Command::new("ip");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing may be gone already.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = run().with_context(what)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", what(), said.trim().replace('\n', "; "));
    }
    Ok(output)
}
