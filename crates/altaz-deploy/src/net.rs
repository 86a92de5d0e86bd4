//! The service's place in the lab's network, as a provider would give it: a port of the bridge.
//!
//! Uses `ip` (iproute2) in batches, at start and stop only.

use std::path::PathBuf;
use std::time::Duration;

use crate::exec::Tool;
use crate::{DeployError, LabEnv};

/// Name of the service's network namespace.
pub const NETNS: &str = "svc";
/// Bridge side of the service's interface.
const PORT: &str = "svc0";

/// A network namespace with one interface on the bridge; removed when dropped.
#[derive(Debug)]
pub struct Namespace(());

impl Namespace {
    /// Makes the namespace, joins it to the bridge by a veth pair, and gives it the service's
    /// address, always with the same MAC address (a new one would stall in stale ARP entries).
    ///
    /// The interface has no IPv6 address of its own making: the kernel would look for routers behind
    /// it, ever more seldom but without end, and that work would be charged to the service in
    /// whichever windows it falls. IPv6 on the loopback interface stays.
    ///
    /// # Errors
    /// When `ip` fails; its message is in the error.
    pub fn create(lab: &LabEnv) -> Result<Self, DeployError> {
        let LabEnv { bridge, service_ip, prefix, gateway, service_mac, .. } = lab;
        batch(&[], &format!("netns add {NETNS}\n"))?;
        let made = Self(());
        batch(
            &[],
            &format!(
                "link add {PORT} type veth peer name eth0 address {service_mac} netns {NETNS}\n\
                 link set {PORT} master {bridge} up\n"
            ),
        )?;
        batch(
            &["-n", NETNS],
            &format!(
                "link set lo up\n\
                 addr add {service_ip}/{prefix} dev eth0\n\
                 link set eth0 addrgenmode none\n\
                 link set eth0 up\n\
                 route add default via {gateway}\n"
            ),
        )?;
        Ok(made)
    }

    /// Path that names the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(NETNS)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair goes with either end; the namespace itself may be held by dying processes.
        let _ = batch(&[], &format!("link del {PORT}\n"));
        let _ = batch(&[], &format!("netns del {NETNS}\n"));
        // The first `ip netns add` mounts the directory on itself.
        let _ = nix::mount::umount2("/run/netns", nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A tap interface on the bridge; removed when dropped.
#[derive(Debug)]
pub struct Tap(());

impl Tap {
    /// Name of the interface.
    pub const NAME: &'static str = "tap0";

    /// Makes the interface, a port of the bridge.
    ///
    /// # Errors
    /// When `ip` fails; its message is in the error.
    pub fn create(lab: &LabEnv) -> Result<Self, DeployError> {
        let name = Self::NAME;
        batch(&[], &format!("tuntap add dev {name} mode tap vnet_hdr\n"))?;
        let made = Self(());
        batch(&[], &format!("link set {name} master {} up\n", lab.bridge))?;
        Ok(made)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = batch(&[], &format!("link del {}\n", Self::NAME));
    }
}

fn batch(options: &[&str], lines: &str) -> Result<(), DeployError> {
    let argv = ["ip"].iter().chain(options).chain(&["-batch", "-"]).copied();
    Tool::new(argv)
        .input(lines.as_bytes())
        .timeout(Duration::from_secs(20))
        .run()
        .map(drop)
        .map_err(|e| match e {
            DeployError::Command { how, stderr, .. } => DeployError::Command {
                command: format!(
                    "ip {}{}",
                    options.join(" "),
                    lines.trim_end().replace('\n', "; ")
                ),
                how,
                stderr,
            },
            other => other,
        })
}
