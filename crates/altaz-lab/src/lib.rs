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
mod agent_file;
mod child;
mod console;
mod cpio;
mod error;
pub mod image;
mod initrd;
mod inputs;
mod interrupt;
mod link;
pub mod netif;
pub mod netns;
pub mod places;
pub mod protocol;
pub mod qemu;
pub mod recipe;
pub mod tarfiles;
pub mod vm;

pub use agent_file::{AGENT_VARIABLE, AgentFile};
pub use error::{LabError, Result};
pub use image::{BuildOptions, LabImage, Progress, ServiceImage, cache_dir};
pub use inputs::{Content, InputFile};
pub use interrupt::Interrupt;
pub use netns::{NetNs, become_unprivileged_root};
pub use recipe::Recipe;
pub use tarfiles::TarFiles;
pub use vm::{BootOptions, LabVm, PluginAttach};
