//! Fixed names and addresses that the host side and the agent agree on.

use std::net::Ipv4Addr;

use crate::netif::Mac;

/// Search path of programs run in the lab.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Tap interface on the host side, in altaz's private network namespace.
pub const TAP: &str = "altaz0";
/// Bridge in the lab that its own and the service's interfaces join.
pub const BRIDGE: &str = "br0";
/// Address of the host side of the tap.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the lab itself.
pub const LAB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Address of the service in every deployment.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// Prefix length of the network they share.
pub const PREFIX: u8 = 24;
/// Hardware address of the host side of the tap.
pub const HOST_MAC: Mac = [0x02, 0, 0, 0x77, 0, 0x01];
/// Hardware address of the lab.
pub const LAB_MAC: Mac = [0x02, 0, 0, 0x77, 0, 0x02];
/// Hardware address of the service.
pub const SERVICE_MAC: Mac = [0x02, 0, 0, 0x77, 0, 0x10];
/// The service image's block device in the lab.
pub const SERVICE_DISK: &str = "/dev/altaz/service";

/// Virtio serial number of a service's disk: the service's own is number 0, those of the other
/// processes of its pod follow. Its name in the lab ends in the same way.
pub fn service_serial(number: usize) -> String {
    match number {
        0 => "service".into(),
        n => format!("service-{n}"),
    }
}
/// Directory in the lab with `vmlinuz`, the guest's initrd and the agent.
pub const LAB_DIR: &str = "/usr/lib/altaz";
/// The agent, as a file of the lab.
pub const AGENT: &str = "/usr/lib/altaz/altaz-agent";
/// Directory of the guest's initrd with the modules of a guest that runs containers.
pub const NESTED_MODULES: &str = "/nested-modules";
/// Initrd of nested guests.
pub const GUEST_INITRD: &str = "/usr/lib/altaz/guest.img";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_look_where_the_lab_puts_things() {
        let env = altaz_deploy::LabEnv::default();
        assert_eq!(env.guest_initrd.to_str(), Some(GUEST_INITRD));
        assert_eq!(env.guest_kernel.to_str(), Some(format!("{LAB_DIR}/vmlinuz").as_str()));
        assert_eq!(env.image_disk.to_str(), Some(SERVICE_DISK));
        assert_eq!(env.bridge, BRIDGE);
        assert_eq!(env.service_ip, SERVICE_ADDRESS.to_string());
        assert_eq!(env.gateway, HOST_ADDRESS.to_string());
        let mac = SERVICE_MAC.map(|b| format!("{b:02x}")).join(":");
        assert_eq!(env.service_mac, mac);
    }
}
