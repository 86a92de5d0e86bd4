//! A faked machine: directories that look like procfs, sysfs, tracefs, `/dev` and `PATH`.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{DoctorReport, LabParts, Machine, examine};

pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;
const GIB: u64 = 1 << 30;

pub struct Fake {
    dir: tempfile::TempDir,
    pub uid: u32,
    pub qemu_version: String,
    pub qemu_plugins: bool,
    pub free: u64,
    pub lab_built: bool,
    pub tracefs_is_own: bool,
    pub ran: RefCell<Vec<String>>,
}

impl Fake {
    /// A machine on which everything works: root on a distribution's kernel, all tools there.
    pub fn complete() -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
            uid: 0,
            qemu_version: "QEMU emulator version 10.0.2 (Debian 1:10.0.2)".into(),
            qemu_plugins: true,
            free: 50 * GIB,
            lab_built: true,
            tracefs_is_own: false,
            ran: RefCell::default(),
        };
        fake.write("proc/sys/kernel/osrelease", "6.12.43-amd64\n");
        fake.write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\n");
        fake.capabilities(ALL_CAPABILITIES);
        fake.write("proc/self/ns/user", "");
        fake.write("proc/self/uid_map", "         0          0 4294967295\n");
        fake.pid_namespace("pid:[4026531836]");
        fake.write("proc/filesystems", "nodev\tsysfs\nnodev\ttracefs\n\text4\n");
        fake.write("proc/sys/kernel/ftrace_enabled", "1\n");
        fake.write(
            "proc/kallsyms",
            "0 A fixed_percpu_data\nffffffff81000000 T bpf_uprobe_multi_link_attach\n\
             ffffffffc0000000 t other\t[mod]\n",
        );
        fake.write("sys/devices/system/cpu/online", "0-1,3\n");
        fake.write("sys/kernel/btf/vmlinux", "");
        fake.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
        fake.write(
            "boot/config-6.12.43-amd64",
            "CONFIG_FUNCTION_TRACER=y\nCONFIG_KPROBES=y\nCONFIG_KPROBE_EVENTS=y\nCONFIG_UPROBES=y\n\
             CONFIG_UPROBE_EVENTS=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_BPF_EVENTS=y\n\
             # CONFIG_XEN is not set\n",
        );
        fake.write("tracefs/available_tracers", "function_graph function nop\n");
        fake.write("tracefs/available_filter_functions", "vfs_read\n");
        fake.write("tracefs/events/raw_syscalls/sys_enter/id", "1");
        fake.write("tracefs/events/kvm/kvm_exit/id", "1");
        fake.write("dev/kvm", "");
        fake.write("dev/net/tun", "");
        for program in ["qemu-system-x86_64", "mmdebstrap", "mke2fs"] {
            fake.write(&format!("bin/{program}"), "#!/bin/false\n");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(fake.path().join("bin").join(program), mode).unwrap();
        }
        fake.write("parts/libaltaz_plugin.so", "");
        fake.write("parts/altaz-agent", "");
        fake
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn write_gz(&self, path: &str, text: &str) {
        let file = std::fs::File::create(self.path().join(path)).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap();
    }

    pub fn remove(&self, path: &str) {
        let path = self.path().join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    pub fn capabilities(&self, set: u64) {
        self.write("proc/self/status", &format!("Name:\taltaz\nCapEff:\t{set:016x}\n"));
    }

    /// What the link of this process's PID namespace says.
    pub fn pid_namespace(&self, link: &str) {
        let dir = self.path().join("proc/self/ns");
        std::fs::create_dir_all(&dir).unwrap();
        let _ = std::fs::remove_file(dir.join("pid"));
        std::os::unix::fs::symlink(link, dir.join("pid")).unwrap();
    }

    pub fn examine(&self) -> DoctorReport {
        let run = |program: &Path, args: &[&str]| {
            self.ran.borrow_mut().push(args.join(" "));
            assert!(program.ends_with("qemu-system-x86_64"));
            match args {
                ["--version"] => Ok(self.qemu_version.clone()),
                _ if self.qemu_plugins => Ok("Plugin options\n".into()),
                _ => Err("plugin interface not enabled in this build".into()),
            }
        };
        let root = self.path();
        let machine = Machine {
            proc: root.join("proc"),
            sys: root.join("sys"),
            tracefs: root.join("tracefs"),
            tracefs_is_own: self.tracefs_is_own,
            dev: root.join("dev"),
            boot: root.join("boot"),
            path: vec![root.join("bin")],
            uid: self.uid,
            run: &run,
        };
        let parts = LabParts {
            qemu: "qemu-system-x86_64".into(),
            plugin: root.join("parts/libaltaz_plugin.so"),
            agent: root.join("parts/altaz-agent"),
            cache: root.join("cache"),
            cache_free: Some(self.free),
            cache_needed: 8 * GIB,
            memory_needed: 6 * GIB,
            lab_built: self.lab_built,
        };
        examine(&machine, &parts)
    }
}
