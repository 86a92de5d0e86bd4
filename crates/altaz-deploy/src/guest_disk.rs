//! The small disk through which a nested guest gets its job and returns its symbols.
//!
//! A guest has no channel to the lab but its disks and its serial console, and nothing of either may
//! run while it serves. The disk (4 MiB or more) has two slots: the job, written before the guest
//! starts, at byte 0; the gzip-compressed text of the guest's `/proc/kallsyms`, written by the guest
//! when it stops, at [`SYMBOLS_AT`]. Each slot is a magic of 16 bytes, a length (u64, little endian),
//! and that many bytes. Pure: bytes in, values out.

use serde::{Deserialize, Serialize};

use crate::model::ServiceSpec;

/// Size of the disk in bytes.
pub const DISK_SIZE: u64 = 16 << 20;
/// Offset of the symbols.
pub const SYMBOLS_AT: u64 = 1 << 20;
/// What the lab writes to the guest's serial console to stop it.
pub const STOP_REQUEST: &str = "stop\n";
/// What the lab writes there to be told when a service that a runtime holds has ended.
pub const STATUS_REQUEST: &str = "status\n";
/// What the guest prints on its console when its first process has begun.
pub const GUEST_UP: &str = "altaz: the guest is up\n";
/// What the guest prints on its console, at the start of a line, when the service ended by itself;
/// the reason follows on the same line.
pub const SERVICE_ENDED: &str = "altaz: service ended: ";
/// Kernel command line word that tells the agent that it is in a guest.
pub const GUEST_MODE: &str = "altaz.guest=1";
/// Beginning of a kernel command line word that names a disk by its device, for machines whose disks
/// have no serial numbers: `altaz.disk.root=/dev/ubda`.
pub const DISK_WORD: &str = "altaz.disk.";

/// Serial number in the guest of the disk with a service's image: the service's own is number 0, those of
/// the other processes of its pod follow.
pub fn image_serial(number: u32) -> String {
    match number {
        0 => "root".into(),
        n => format!("root-{n}"),
    }
}

const JOB_MAGIC: &[u8; 16] = b"altaz guest job\n";
const SYMBOLS_MAGIC: &[u8; 16] = b"altaz kallsyms\n\n";
const HEADER: usize = 24;

/// What a guest has to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestJob {
    /// The service.
    pub spec: ServiceSpec,
    /// The deployment that runs the service inside the guest; `None`: a plain process.
    pub inside: Option<String>,
    /// Name of the guest's network interface.
    pub interface: String,
    /// Address of the service.
    pub ip: String,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default gateway.
    pub gateway: String,
    /// MAC address of the service's interface.
    pub mac: String,
}

/// Why a slot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GuestDiskError {
    /// Nothing was written there.
    #[error("the guest's {0} slot is empty")]
    Empty(&'static str),
    /// It is damaged.
    #[error("the guest's {slot} slot is damaged: {why}")]
    Damaged {
        /// Which slot.
        slot: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Bytes of the job slot.
pub fn encode_job(job: &GuestJob) -> Vec<u8> {
    slot(JOB_MAGIC, &serde_json::to_vec(job).unwrap_or_default())
}

/// The job of a disk, from its first bytes (at least up to [`SYMBOLS_AT`]).
///
/// # Errors
/// When there is none or it is damaged.
pub fn decode_job(disk: &[u8]) -> Result<GuestJob, GuestDiskError> {
    let json = payload(disk, JOB_MAGIC, "job")?;
    serde_json::from_slice(json)
        .map_err(|e| GuestDiskError::Damaged { slot: "job", why: e.to_string() })
}

/// Bytes of the symbol slot, to be written at [`SYMBOLS_AT`].
pub fn encode_symbols(gzip: &[u8]) -> Vec<u8> {
    slot(SYMBOLS_MAGIC, gzip)
}

/// The gzip-compressed symbols, from the bytes that begin at [`SYMBOLS_AT`].
///
/// # Errors
/// When the guest wrote none or they are damaged.
pub fn decode_symbols(slot: &[u8]) -> Result<&[u8], GuestDiskError> {
    payload(slot, SYMBOLS_MAGIC, "symbol")
}

fn slot(magic: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn payload<'a>(
    bytes: &'a [u8],
    magic: &[u8; 16],
    slot: &'static str,
) -> Result<&'a [u8], GuestDiskError> {
    let damaged = |why: &str| GuestDiskError::Damaged { slot, why: why.into() };
    if bytes.len() < HEADER {
        return Err(damaged("it is cut off"));
    }
    if bytes[..16].iter().all(|b| *b == 0) {
        return Err(GuestDiskError::Empty(slot));
    }
    if &bytes[..16] != magic {
        return Err(damaged("it does not begin with its magic"));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&bytes[16..HEADER]);
    usize::try_from(u64::from_le_bytes(length))
        .ok()
        .and_then(|n| bytes[HEADER..].get(..n))
        .ok_or_else(|| damaged("its length reaches past its end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_slot_is_empty_not_damaged() {
        assert!(matches!(decode_symbols(&[0; 4096]), Err(GuestDiskError::Empty(_))));
    }

    #[test]
    fn symbols_come_back_as_they_were_written() {
        let mut disk = encode_symbols(b"abc");
        disk.resize(4096, 0);
        assert_eq!(decode_symbols(&disk).unwrap(), b"abc");
    }

    proptest::proptest! {
        #[test]
        fn damage_is_an_error_never_a_panic(mut bytes: Vec<u8>, keep in 0usize..40) {
            let whole = encode_job_magic();
            let n = keep.min(whole.len());
            bytes.splice(0..0, whole[..n].iter().copied());
            let _ = decode_job(&bytes);
            let _ = decode_symbols(&bytes);
        }
    }

    fn encode_job_magic() -> Vec<u8> {
        slot(JOB_MAGIC, b"{}")
    }
}
