//! Network interfaces by ioctl: tap, bridge, addresses, up. Used outside and inside the lab, so
//! that neither needs a tool for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// A hardware address.
pub type Mac = [u8; 6];

const IFNAMSIZ: usize = libc::IFNAMSIZ;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const SIOCBRADDBR: libc::c_ulong = 0x89a0;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// Octets of an interface name, NUL padded.
fn name_bytes(name: &str) -> io::Result<[libc::c_char; IFNAMSIZ]> {
    if name.is_empty() || name.len() >= IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("bad interface name {name:?}"),
        ));
    }
    let mut out = [0; IFNAMSIZ];
    for (to, from) in out.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(out)
}

fn empty_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name_bytes(name)?;
    Ok(request)
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket has no memory arguments; the result is checked and owned once.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd is a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ioctl(fd: &impl AsRawFd, request: libc::c_ulong, arg: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request used in this module reads or writes one ifreq, which outlives the call.
    let rc =
        unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(arg)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a new tap interface in the current network namespace; it vanishes with the descriptor.
pub fn open_tap(name: &str) -> io::Result<File> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = empty_request(name)?;
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    ioctl(&tun, TUNSETIFF, &mut request)?;
    Ok(tun)
}

/// Sets the hardware address.
pub fn set_mac(name: &str, mac: Mac) -> io::Result<()> {
    let mut request = empty_request(name)?;
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ioctl(&control_socket()?, libc::SIOCSIFHWADDR as libc::c_ulong, &mut request)
}

fn inet(address: Ipv4Addr) -> libc::sockaddr {
    let mut out = libc::sockaddr { sa_family: libc::AF_INET as u16, sa_data: [0; 14] };
    // sockaddr_in: two bytes of port, then the address in network order.
    for (to, from) in out.sa_data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    out
}

/// Sets address and prefix length.
pub fn set_address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = empty_request(name)?;
    request.ifr_ifru.ifru_addr = inet(address);
    ioctl(&socket, libc::SIOCSIFADDR as libc::c_ulong, &mut request)?;
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let mut request = empty_request(name)?;
    request.ifr_ifru.ifru_netmask = inet(Ipv4Addr::from(bits));
    ioctl(&socket, libc::SIOCSIFNETMASK as libc::c_ulong, &mut request)
}

/// Brings an interface up.
pub fn set_up(name: &str) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = empty_request(name)?;
    ioctl(&socket, libc::SIOCGIFFLAGS as libc::c_ulong, &mut request)?;
    // SAFETY: SIOCGIFFLAGS filled the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(&socket, libc::SIOCSIFFLAGS as libc::c_ulong, &mut request)
}

/// Makes a bridge.
pub fn add_bridge(name: &str) -> io::Result<()> {
    let name = name_bytes(name)?;
    let socket = control_socket()?;
    // SAFETY: SIOCBRADDBR reads a NUL-terminated name of at most IFNAMSIZ bytes.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDBR as libc::Ioctl, name.as_ptr()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes an interface a port of a bridge.
pub fn add_to_bridge(bridge: &str, port: &str) -> io::Result<()> {
    let port_name = std::ffi::CString::new(port)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(port_name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut request = empty_request(bridge)?;
    request.ifr_ifru.ifru_ifindex = index as libc::c_int;
    ioctl(&control_socket()?, SIOCBRADDIF, &mut request)
}

/// `struct rtentry` of the kernel's routing ioctl.
#[repr(C)]
struct RouteEntry {
    pad1: libc::c_ulong,
    destination: libc::sockaddr,
    gateway: libc::sockaddr,
    mask: libc::sockaddr,
    flags: libc::c_ushort,
    pad2: libc::c_short,
    pad3: libc::c_ulong,
    pad4: *mut libc::c_void,
    metric: libc::c_short,
    device: *mut libc::c_char,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    irtt: libc::c_ushort,
}

/// Adds a default route by a gateway.
pub fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let route = RouteEntry {
        pad1: 0,
        destination: inet(Ipv4Addr::UNSPECIFIED),
        gateway: inet(gateway),
        mask: inet(Ipv4Addr::UNSPECIFIED),
        flags: libc::RTF_UP | libc::RTF_GATEWAY,
        pad2: 0,
        pad3: 0,
        pad4: std::ptr::null_mut(),
        metric: 0,
        device: std::ptr::null_mut(),
        mtu: 0,
        window: 0,
        irtt: 0,
    };
    let socket = control_socket()?;
    // SAFETY: SIOCADDRT reads one rtentry of this layout, which outlives the call.
    let rc = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as libc::Ioctl, std::ptr::from_ref(&route))
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
