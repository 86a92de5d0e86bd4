//! The lab: a disposable virtual machine in which services are measured.
//!
//! - [`recipe`] and [`image`]: what is in it, built once and cached; service images too.
//! - [`netns`]: the private network that reaches it; [`qemu`], [`vm`]: booting and using it.
//! - [`protocol`]: the words between altaz and [`agent`], the first process inside.
//! - [`tarfiles`]: reads single files of an image in place.
//!
//! Nothing here measures anything or knows what a profile is, and nothing that this crate makes
//! outlives the process, but the cache of images.

pub mod agent;
pub mod netif;
pub mod places;
pub mod protocol;

#[cfg(feature = "host")]
mod agent_file;
#[cfg(feature = "host")]
mod child;
#[cfg(feature = "host")]
mod console;
#[cfg(feature = "host")]
mod cpio;
#[cfg(feature = "host")]
mod error;
#[cfg(feature = "host")]
pub mod image;
#[cfg(feature = "host")]
mod initrd;
#[cfg(feature = "host")]
mod inputs;
#[cfg(feature = "host")]
mod interrupt;
#[cfg(feature = "host")]
mod link;
#[cfg(feature = "host")]
pub mod netns;
#[cfg(feature = "host")]
pub mod qemu;
#[cfg(feature = "host")]
pub mod recipe;
#[cfg(feature = "host")]
pub mod tarfiles;
#[cfg(feature = "host")]
pub mod vm;

#[cfg(feature = "host")]
pub use agent_file::{AGENT_VARIABLE, AgentFile};
#[cfg(feature = "host")]
pub use error::{LabError, Result};
#[cfg(feature = "host")]
pub use image::{BuildOptions, LabImage, Progress, ServiceImage, cache_dir};
#[cfg(feature = "host")]
pub use inputs::{Content, InputFile};
#[cfg(feature = "host")]
pub use interrupt::Interrupt;
#[cfg(feature = "host")]
pub use netns::{NetNs, become_unprivileged_root};
#[cfg(feature = "host")]
pub use recipe::Recipe;
#[cfg(feature = "host")]
pub use tarfiles::TarFiles;
#[cfg(feature = "host")]
pub use vm::{BootOptions, LabVm, PluginAttach};
