//! Engines' and runtimes' layouts as they are on real machines, and what they are recognised as.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use altaz_profile::model::{Layer, Owner};
use altaz_profile::rules::{CodePlace, LayerRules, Machine as On, Origin, Privilege};
use altaz_target::{Request, Role, Target, TargetError, ThreadKind, posture, resolve};
use common::{HYBRID, Machine, Proc, V2};

const ID: &str = "3f1c9b8a7d6e5f4c3b2a19080706050403020100ffeeddccbbaa998877665544";
const OTHER: &str = "3f1c0000000000000000000000000000000000000000000000000000000000ff";
/// Namespaces that container engines make.
const ISOLATED: &[(&str, u64)] =
    &[("cgroup", 1), ("ipc", 2), ("mnt", 3), ("net", 4), ("pid", 5), ("uts", 6)];

fn container(m: &Machine, name: &str) -> Result<Target, TargetError> {
    resolve(&m.roots(), &Request::Container(name.into()))
}

fn pid(m: &Machine, pid: u32) -> Result<Target, TargetError> {
    resolve(&m.roots(), &Request::Pids(vec![pid]))
}

fn roles(t: &Target) -> Vec<(u32, Role)> {
    t.processes.iter().map(|p| (p.pid, p.role)).collect()
}

/// nginx and a worker of it in a container.
fn nginx(m: &Machine, cgroup: &str, parent: u32) {
    let master = Proc {
        pid: 200,
        ppid: parent,
        comm: "nginx",
        argv: &["nginx: master process nginx -g daemon off;"],
        exe: "/usr/sbin/nginx",
        cgroup,
        ns: ISOLATED,
        start: 7777,
        ..Proc::default()
    };
    m.proc(&master);
    let argv = &["nginx: worker process"];
    m.proc(&Proc { pid: 201, ppid: 200, argv, start: 7800, ..master });
}

#[test]
fn podman_s_container_is_found_by_name_id_prefix_and_pid() {
    let m = Machine::new(V2);
    m.file(
        "var/lib/containers/storage/overlay-containers/containers.json",
        &format!(
            r#"[{{"id":"{ID}","names":["web"],"image":"b8d1","layer":"77aa","metadata":"{{\"image-name\":\"docker.io/library/nginx:latest\",\"name\":\"web\"}}","created":"2026-11-20T10:00:00.1Z","flags":{{"MountLabel":""}}}},
               {{"id":"{OTHER}","names":["stopped"],"image":"b8d1","layer":"77ab","created":"2026-11-20T10:00:00.1Z"}}]"#
        ),
    );
    let cgroup = format!("0::/machine.slice/libpod-{ID}.scope/container");
    m.file(
        &format!("run/crun/{ID}/status"),
        &format!(
            r#"{{"pid": 200, "process-start-time": 7777, "cgroup-path": "/machine.slice/libpod-{ID}.scope",
                "scope": "libpod-{ID}.scope", "intelrdt": "", "rootfs": "/var/lib/containers/storage/overlay/77aa/merged",
                "systemd-cgroup": true, "bundle": "/var/lib/containers/storage/overlay-containers/{ID}/userdata",
                "created": "2026-11-20T10:00:00Z", "owner": "root", "detached": false, "external_descriptors": "[]"}}"#
        ),
    );
    m.cgroup(&format!("sys/fs/cgroup/machine.slice/libpod-{ID}.scope/container"));
    let conmon = format!("0::/machine.slice/libpod-conmon-{ID}.scope");
    m.proc(&Proc {
        pid: 190,
        comm: "conmon",
        argv: &["/usr/bin/conmon", "--api-version", "1", "-c", ID, "-n", "web"],
        exe: "/usr/bin/conmon",
        cgroup: &conmon,
        ..Proc::default()
    });
    nginx(&m, &cgroup, 190);

    for name in ["web", ID, &ID[..6]] {
        let t = container(&m, name).unwrap();
        assert_eq!(t.deployment, "crun", "{name}");
        assert_eq!(roles(&t), [(190, Role::Shim), (200, Role::App), (201, Role::App)]);
        assert!(t.what.contains("web (podman, crun)"), "{}", t.what);
    }
    let t = pid(&m, 201).unwrap();
    assert_eq!(t.deployment, "crun");
    assert_eq!(t.outside_cgroup(), [190]);
    let cgroup = t.cgroup.clone().unwrap();
    assert_eq!(
        cgroup.path,
        Path::new("/sys/fs/cgroup/machine.slice").join(format!("libpod-{ID}.scope"))
    );
    assert_eq!(cgroup.level, 2);
    assert!(t.notes.iter().any(|n| n.contains("200 (nginx) app")), "{:?}", t.notes);
    // What watches over it stands for it.
    assert_eq!(roles(&pid(&m, 190).unwrap()).len(), 3);
    let e = container(&m, "stopped").unwrap_err();
    assert!(matches!(e, TargetError::NotRunning { .. }), "{e}");
}

#[test]
fn podman_without_root_and_a_quadlet_s_unit() {
    let m = Machine::new(V2);
    m.file(
        "home/user/.local/share/containers/storage/overlay-containers/containers.json",
        &format!(r#"[{{"id":"{ID}","names":["mine"]}}]"#),
    );
    let unit = "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service";
    let payload = format!("0::{unit}/libpod-payload-{ID}");
    nginx(&m, &payload, 190);
    m.proc(&Proc {
        pid: 190,
        comm: "conmon",
        argv: &["/usr/bin/conmon", "-c", ID],
        exe: "/usr/bin/conmon",
        cgroup: &format!("0::{unit}/runtime"),
        ..Proc::default()
    });
    let t = container(&m, "mine").unwrap();
    assert_eq!(t.deployment, "container", "no runtime's state says which one");
    let t = resolve(&m.roots(), &Request::Unit("web".into())).unwrap();
    assert_eq!(t.deployment, "container");
    assert_eq!(roles(&t).len(), 3);
}

#[test]
fn docker_s_container_under_both_of_its_cgroup_drivers() {
    for (mounts, cgroup, at) in [
        (V2, format!("0::/system.slice/docker-{ID}.scope"), Some("sys/fs/cgroup/system.slice")),
        (
            HYBRID,
            format!(
                "9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n3:cpu,cpuacct:/docker/{ID}\n0::/system.slice/containerd.service"
            ),
            None,
        ),
    ] {
        let m = Machine::new(mounts);
        if let Some(at) = at {
            m.cgroup(&format!("{at}/docker-{ID}.scope"));
        }
        m.file(
            &format!("var/lib/docker/containers/{ID}/config.v2.json"),
            &format!(
                r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Paused":false,"Pid":200,"ExitCode":0}},"ID":"{ID}","Created":"2026-11-20T10:00:00Z","Path":"nginx","Args":["-g"],"Config":{{"Hostname":"x","Image":"nginx"}},"Name":"/web","Driver":"overlay2"}}"#
            ),
        );
        m.file(
            &format!("run/docker/runtime-runc/moby/{ID}/state.json"),
            &format!(
                r#"{{"id":"{ID}","init_process_pid":200,"init_process_start":7777,"created":"2026-11-20T10:00:00Z","config":{{"rootfs":"/var/lib/docker/overlay2/1/merged"}},"rootless":false,"cgroup_paths":{{"memory":"/sys/fs/cgroup/memory/docker/{ID}"}}}}"#
            ),
        );
        m.proc(&Proc {
            pid: 180,
            comm: "containerd-shim",
            argv: &["/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", ID, "-address", "/run/c.sock"],
            exe: "/usr/bin/containerd-shim-runc-v2",
            cgroup: "9:name=systemd:/system.slice/containerd.service\n0::/system.slice/containerd.service",
            ..Proc::default()
        });
        nginx(&m, &cgroup, 180);
        let t = container(&m, "web").unwrap();
        assert_eq!(t.deployment, "runc");
        assert_eq!(roles(&t), [(180, Role::Shim), (200, Role::App), (201, Role::App)]);
        assert!(t.what.contains("(docker, runc)"), "{}", t.what);
        // Version 2 can only tell them apart where docker uses it.
        assert_eq!(t.cgroup.is_some(), at.is_some());
        let asked = match at {
            Some(_) => format!("/sys/fs/cgroup/system.slice/docker-{ID}.scope"),
            None => format!("/sys/fs/cgroup/memory/docker/{ID}"),
        };
        let t = resolve(&m.roots(), &Request::Cgroup(asked.into())).unwrap();
        assert_eq!((t.deployment.as_str(), t.pids()), ("runc", vec![200, 201]));
    }
}

#[test]
fn kubernetes_containers_of_one_name_are_ambiguous_and_their_ids_are_not() {
    let m = Machine::new(V2);
    for (id, pid) in [(ID, 200), (OTHER, 300)] {
        let cgroup =
            format!("0::/kubepods.slice/kubepods-pod{pid}.slice/cri-containerd-{id}.scope");
        let task = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}");
        m.file(
            &format!("{task}/config.json"),
            r#"{"ociVersion":"1.1.0","process":{"args":["nginx"]},"annotations":{"io.kubernetes.cri.container-name":"web","io.kubernetes.cri.container-type":"container"}}"#,
        );
        m.file(&format!("{task}/init.pid"), &pid.to_string());
        m.proc(&Proc {
            pid,
            comm: "nginx",
            exe: "/usr/sbin/nginx",
            cgroup: &cgroup,
            ns: ISOLATED,
            ..Proc::default()
        });
    }
    let e = container(&m, "web").unwrap_err();
    assert!(matches!(&e, TargetError::Ambiguous { matches, .. } if matches.len() == 2), "{e}");
    assert!(e.to_string().contains("3f1c9b8a7d6e web (containerd)"), "{e}");
    let e = container(&m, "3f1c").unwrap_err();
    assert!(matches!(e, TargetError::Ambiguous { .. }), "{e}");
    let t = container(&m, "3f1c9").unwrap();
    assert_eq!((t.deployment.as_str(), t.pids()), ("container", vec![200]));
    let e = container(&m, "db").unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("io.containerd.runtime.v2.task") && text.contains("3f1c9b8a7d6e web"),
        "{text}"
    );
}

#[test]
fn a_directly_started_runtime_is_told_by_its_state() {
    let m = Machine::new(V2);
    m.file(
        "run/runc/web/state.json",
        r#"{"id":"web","init_process_pid":200,"init_process_start":7777,"created":"2026-11-24T11:29:09.67579016Z","config":{"no_pivot_root":false,"rootfs":"/run/b/rootfs"},"cgroup_paths":{"":"/sys/fs/cgroup/web"},"namespace_paths":{"NEWPID":"/proc/200/ns/pid"}}"#,
    );
    m.cgroup("sys/fs/cgroup/web");
    nginx(&m, "0::/web", 1);
    let t = container(&m, "web").unwrap();
    assert_eq!((t.deployment.as_str(), t.pids()), ("runc", vec![200, 201]));
    assert_eq!(t.outside_cgroup(), Vec::<u32>::new());
    let owner = |t: &Target, l| t.layers.iter().find(|i| i.name == l).map(|i| (i.owner, i.shared));
    assert_eq!(owner(&t, Layer::HostKernel), Some((Owner::Provider, true)));
    assert_eq!(owner(&t, Layer::App), Some((Owner::Tenant, false)));
    let syscalls = t.boundaries.iter().find(|b| b.name == "syscall").unwrap();
    assert_eq!(syscalls.permitted, None, "not measured yet, and no default is claimed");
    let p = posture(&m.roots(), &t.processes[0]).unwrap();
    assert_eq!(p.namespaces, ["cgroup", "ipc", "mnt", "net", "pid", "uts"]);
    assert!(p.no_new_privs && p.capabilities.contains(&"CAP_CHOWN".to_owned()));

    // Its number was given to another process: the state is a leftover.
    m.proc(&Proc {
        pid: 200,
        cgroup: "0::/system.slice/cron.service",
        start: 99_999,
        ..Proc::default()
    });
    m.ends(201);
    let e = container(&m, "web").unwrap_err();
    assert!(matches!(e, TargetError::NotRunning { .. }), "{e}");
    assert_eq!(pid(&m, 200).unwrap().deployment, "process");
}

/// Sentry, gofer and a stub, as runsc 20240729 starts them; the gofer outside of the sentry's cgroup.
fn gvisor(m: &Machine) {
    m.file(
        "run/runsc/web_sandbox:web.state",
        r#"{"id":"web","spec":{"ociVersion":"1.2.0"},"bundleDir":"/run/b","createdAt":"2026-11-24T11:30:05Z","owner":"","status":"running","goferPid":210,"sandbox":{"id":"web","podName":"","namespace":"","pid":211,"uid":0,"gid":0},"goferMountConfs":[{"upper":0,"lower":1}]}"#,
    );
    m.cgroup("sys/fs/cgroup/sandbox");
    let ns = &[("mnt", 20), ("user", 21)];
    let gofer = Proc {
        pid: 210,
        comm: "exe",
        argv: &[
            "runsc-gofer",
            "--root=/var/run/runsc",
            "--platform=systrap",
            "gofer",
            "--bundle=/run/b",
            "--spec-fd=3",
        ],
        exe: "/usr/bin/runsc",
        cgroup: "0::/system.slice/ssh.service",
        ns: &[("mnt", 10), ("pid", 11), ("user", 12)],
        ..Proc::default()
    };
    m.proc(&gofer);
    m.proc(&Proc {
        pid: 211,
        argv: &[
            "runsc-sandbox",
            "--root=/var/run/runsc",
            "--network=none",
            "--platform=systrap",
            "boot",
            "--bundle=/run/b",
            "--product-name=Standard PC (Q35)",
            "web",
        ],
        cgroup: "0::/sandbox",
        ns,
        ..gofer
    });
    m.proc(&Proc { pid: 212, ppid: 211, argv: &[], cgroup: "0::/sandbox", ns, ..gofer });
}

#[test]
fn one_part_of_a_sandbox_stands_for_all_of_it() {
    let m = Machine::new(V2);
    gvisor(&m);
    let want = [(210, Role::Gofer), (211, Role::Sentry), (212, Role::Stub)];
    for part in [210, 211, 212] {
        let t = pid(&m, part).unwrap();
        assert_eq!(
            (t.deployment.as_str(), roles(&t).as_slice()),
            ("runsc-systrap", &want[..]),
            "{part}"
        );
        assert!(
            t.notes.iter().any(|n| n.starts_with("recorded with what was named")),
            "{:?}",
            t.notes
        );
    }
    let t = container(&m, "web").unwrap();
    assert_eq!(roles(&t), want);
    assert_eq!((t.cgroup.as_ref().map(|c| c.level), t.outside_cgroup()), (Some(1), vec![210]));
    let sentry = t.layers.iter().find(|l| l.name == Layer::SandboxKernel).unwrap();
    assert!(sentry.ownership_moved && !sentry.shared);
    assert!(t.notes.iter().any(|n| n.contains("network none")), "{:?}", t.notes);
    let rules = LayerRules::compile(&t.rules).unwrap();
    let layer = |role: Role, binary| {
        rules.layer_of(CodePlace {
            machine: On::Host,
            privilege: Privilege::User,
            origin: role.origin(),
            binary,
            role: role.as_str(),
        })
    };
    assert_eq!(layer(Role::Sentry, "/usr/bin/runsc"), Some(Layer::SandboxKernel));
    assert_eq!(layer(Role::Gofer, "/usr/bin/runsc"), Some(Layer::SandboxHelper));
    assert_eq!(layer(Role::Stub, "/bin/busybox"), Some(Layer::App));
    assert_eq!(layer(Role::Stub, "/lib/libc.so.6"), Some(Layer::Library));
}

/// A guest with vhost threads as on kernels before 6.4 and after, and virtiofsd.
fn qemu(m: &Machine, cgroup: &str, ns: &[(&str, u64)]) {
    m.proc(&Proc {
        pid: 400,
        comm: "qemu-system-x86",
        argv: &[
            "/usr/bin/qemu-system-x86_64",
            "-machine",
            "q35,accel=kvm",
            "-chardev",
            "socket,id=fs,path=/run/vm/fs.sock",
        ],
        exe: "/usr/bin/qemu-system-x86_64",
        cgroup,
        ns,
        threads: &[(401, "CPU 0/KVM"), (402, "vhost-400"), (403, "IO mon_iothread")],
        fds: &["/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"],
        ..Proc::default()
    });
    m.proc(&Proc { pid: 410, ppid: 2, comm: "vhost-400", cgroup, kernel: true, ..Proc::default() });
    m.proc(&Proc { pid: 411, ppid: 2, comm: "kvm-pit/400", kernel: true, ..Proc::default() });
    m.proc(&Proc { pid: 412, ppid: 2, comm: "kworker/0:1", kernel: true, ..Proc::default() });
    m.proc(&Proc {
        pid: 420,
        comm: "virtiofsd",
        argv: &["/usr/libexec/virtiofsd", "--socket-path=/run/vm/fs.sock", "--shared-dir", "/srv"],
        exe: "/usr/libexec/virtiofsd",
        cgroup: "0::/system.slice/libvirtd.service",
        ..Proc::default()
    });
}

#[test]
fn a_virtual_machine_has_its_threads_its_kernel_threads_and_its_helpers() {
    let m = Machine::new(V2);
    qemu(&m, "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope", &[]);
    let want = [
        (400, Role::Vmm),
        (410, Role::KernelWorker),
        (411, Role::KernelWorker),
        (420, Role::VmmHelper),
    ];
    for part in [400, 410, 420] {
        let t = pid(&m, part).unwrap();
        assert_eq!((t.deployment.as_str(), roles(&t).as_slice()), ("qemu", &want[..]), "{part}");
    }
    let t = resolve(&m.roots(), &Request::Unit("machine-qemu\\x2d1\\x2dweb.scope".into())).unwrap();
    assert_eq!(roles(&t), want);
    let kinds: Vec<ThreadKind> = t.processes[0].tids.iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [ThreadKind::Main, ThreadKind::Vcpu, ThreadKind::Vhost, ThreadKind::Other]);
    assert!(
        t.blind_spots.iter().any(|b| b.kind == "guest-code" && b.layer == Some(Layer::GuestKernel))
    );
    assert!(t.boundaries.iter().any(|b| b.name == "vm-exit"));
    assert!(t.layers.iter().any(|l| l.name == Layer::VmmHelper));
    let e = pid(&m, 412).unwrap_err();
    assert!(matches!(e, TargetError::KernelThread { .. }), "{e}");
}

#[test]
fn a_monitor_is_never_taken_for_the_container_that_it_sits_in() {
    let m = Machine::new(V2);
    let cgroup = format!("0::/system.slice/docker-{ID}.scope");
    m.file(
        &format!("var/lib/docker/containers/{ID}/config.v2.json"),
        &format!(r#"{{"ID":"{ID}","Name":"/vm","State":{{"Pid":390}}}}"#),
    );
    qemu(&m, &cgroup, ISOLATED);
    m.proc(&Proc {
        pid: 390,
        comm: "launcher",
        argv: &["/usr/bin/virt-launcher"],
        exe: "/usr/bin/virt-launcher",
        cgroup: &cgroup,
        ns: ISOLATED,
        ..Proc::default()
    });
    for request in
        [Request::Container("vm".into()), Request::Pids(vec![390]), Request::Pids(vec![400])]
    {
        let t = resolve(&m.roots(), &request).unwrap();
        assert_eq!(t.deployment, "qemu", "{request:?}");
        assert!(roles(&t).contains(&(400, Role::Vmm)));
        assert!(!roles(&t).iter().any(|(_, r)| *r == Role::App));
    }
}

#[test]
fn firecracker_and_an_unknown_monitor_are_told_from_each_other_and_from_tcg() {
    let m = Machine::new(V2);
    m.proc(&Proc {
        pid: 500,
        comm: "firecracker",
        argv: &["/firecracker", "--id", "x"],
        exe: "/firecracker",
        threads: &[(501, "fc_vcpu 0")],
        ns: &[("pid", 30), ("mnt", 31)],
        ..Proc::default()
    });
    let fds = &["/dev/kvm", "anon_inode:kvm-vm"];
    m.proc(&Proc {
        pid: 510,
        comm: "myvmm",
        argv: &["myvmm"],
        exe: "/opt/myvmm",
        fds,
        ..Proc::default()
    });
    let tcg = &["qemu-system-aarch64", "-M", "virt"];
    m.proc(&Proc {
        pid: 520,
        comm: "qemu",
        argv: tcg,
        exe: "/usr/bin/qemu-system-aarch64",
        fds: &["/dev/null"],
        ..Proc::default()
    });
    assert_eq!(pid(&m, 500).unwrap().deployment, "firecracker");
    assert_eq!(pid(&m, 510).unwrap().deployment, "vmm");
    let t = pid(&m, 520).unwrap();
    assert_eq!(t.deployment, "qemu");
    assert!(!t.boundaries.iter().any(|b| b.name == "vm-exit"), "nothing exits");
}

#[test]
fn an_ordinary_service_is_found_by_pid_unit_and_cgroup_with_everything_the_tenant_s() {
    for (mounts, cgroup, root) in [
        (V2, "0::/system.slice/nginx.service", "/sys/fs/cgroup"),
        (
            HYBRID,
            "9:name=systemd:/system.slice/nginx.service\n4:memory:/system.slice/nginx.service\n0::/system.slice/nginx.service",
            "/sys/fs/cgroup/unified",
        ),
    ] {
        let m = Machine::new(mounts);
        m.cgroup(&format!("{}/system.slice/nginx.service", &root[1..]));
        let master =
            Proc { pid: 600, cgroup, comm: "nginx", exe: "/usr/sbin/nginx", ..Proc::default() };
        m.proc(&master);
        m.proc(&Proc { pid: 601, ppid: 600, ..master });
        m.proc(&Proc { pid: 602, cgroup: "0::/system.slice/cron.service", ..Proc::default() });
        for request in [
            Request::Pids(vec![600]),
            Request::Unit("nginx".into()),
            Request::Cgroup("/system.slice/nginx.service".into()),
            Request::Cgroup(Path::new(root).join("system.slice/nginx.service")),
            Request::Cgroup(m.path(&root[1..]).join("system.slice/../system.slice/nginx.service")),
        ] {
            let t = resolve(&m.roots(), &request).unwrap();
            assert_eq!(
                (t.deployment.as_str(), t.pids()),
                ("process", vec![600, 601]),
                "{request:?}"
            );
            assert_eq!(t.cgroup.unwrap().path, Path::new(root).join("system.slice/nginx.service"));
            assert!(t.layers.iter().all(|l| l.owner == Owner::Tenant && !l.shared));
            let rules = LayerRules::compile(&t.rules).unwrap();
            let place = |privilege, origin, binary| CodePlace {
                machine: On::Host,
                privilege,
                origin,
                binary,
                role: "app",
            };
            let own = t.processes[0].role.origin();
            assert_eq!(
                rules.layer_of(place(Privilege::User, own, "/usr/sbin/nginx")),
                Some(Layer::App)
            );
            assert_eq!(
                rules.layer_of(place(Privilege::User, own, "/lib/libc.so.6")),
                Some(Layer::Library)
            );
            assert_eq!(
                rules.layer_of(place(Privilege::Kernel, Origin::Unknown, "kernel")),
                Some(Layer::HostKernel)
            );
        }
        let e = resolve(&m.roots(), &Request::Unit("apache2".into())).unwrap_err().to_string();
        assert!(e.contains("apache2.service") && e.contains("nginx.service"), "{e}");
        let e = resolve(&m.roots(), &Request::Cgroup("/no/such".into())).unwrap_err();
        assert!(matches!(e, TargetError::NoCgroup { .. }), "{e}");
        m.cgroup(&format!("{}/empty", &root[1..]));
        let e = resolve(&m.roots(), &Request::Cgroup("/empty".into())).unwrap_err();
        assert!(matches!(e, TargetError::EmptyCgroup(_)), "{e}");
        let e = resolve(&m.roots(), &Request::Cgroup(root.into())).unwrap_err();
        assert!(matches!(e, TargetError::WholeMachine(_)), "{e}");
    }
}

#[test]
fn different_deployments_are_not_recorded_as_one() {
    let m = Machine::new(V2);
    gvisor(&m);
    qemu(&m, "0::/vm", &[]);
    m.proc(&Proc { pid: 600, ..Proc::default() });
    for pids in [vec![600, 400], vec![211, 400], vec![600, 211]] {
        let e = resolve(&m.roots(), &Request::Pids(pids.clone())).unwrap_err();
        assert!(matches!(e, TargetError::Mixed { .. }), "{pids:?}: {e}");
    }
    // One that descends from a shell is not the shell's.
    m.proc(&Proc { pid: 399, comm: "bash", ..Proc::default() });
    qemu(&m, "0::/vm", &[]);
    let stat = std::fs::read_to_string(m.path("proc/400/stat")).unwrap();
    m.file("proc/400/stat", &stat.replace("S 1 ", "S 399 "));
    let t = pid(&m, 399).unwrap();
    assert_eq!((t.deployment.as_str(), t.pids()), ("process", vec![399]));
    assert!(t.notes.iter().any(|n| n.contains("400 (qemu-system-x86)")), "{:?}", t.notes);
}

#[test]
fn a_refresh_finds_what_came_and_what_went() {
    let m = Machine::new(V2);
    let cgroup = "0::/system.slice/nginx.service";
    let master = Proc { pid: 600, cgroup, comm: "nginx", ..Proc::default() };
    m.proc(&master);
    m.proc(&Proc { pid: 601, ppid: 600, ..master });
    let mut t = pid(&m, 600).unwrap();
    assert_eq!(t.refresh(&m.roots()).unwrap(), altaz_target::Changes::default());

    // A new worker, a new thread, and a number that another process got.
    m.proc(&Proc { pid: 700, ppid: 600, start: 9000, threads: &[(701, "pool")], ..master });
    m.proc(&Proc { pid: 601, ppid: 1, cgroup: "0::/other", start: 9100, ..master });
    let c = t.refresh(&m.roots()).unwrap();
    assert_eq!(c.new.iter().map(|p| p.pid).collect::<Vec<_>>(), [700]);
    assert_eq!((c.new_tids, c.gone, c.gone_tids), (vec![700, 701], vec![601], vec![601]));

    // The first process ends; what it left behind goes on and starts another.
    m.ends(600);
    m.proc(&Proc { pid: 700, ppid: 1, start: 9000, ..master });
    m.proc(&Proc { pid: 702, ppid: 700, start: 9200, ..master });
    let c = t.refresh(&m.roots()).unwrap();
    assert_eq!((c.gone, c.new.len(), t.pids()), (vec![600], 1, vec![700, 702]));
    m.ends(700);
    m.ends(702);
    t.refresh(&m.roots()).unwrap();
    assert!(t.processes.is_empty());
}

#[test]
fn processes_that_vanish_half_way_are_left_out_without_an_error() {
    let m = Machine::new(V2);
    m.proc(&Proc { pid: 600, ..Proc::default() });
    for (pid, gone) in
        [(801, "stat"), (802, "cmdline"), (803, "ns"), (804, "task"), (805, "cgroup")]
    {
        m.proc(&Proc { pid, ppid: 600, ..Proc::default() });
        let path = m.path(&format!("proc/{pid}/{gone}"));
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    let t = pid(&m, 600).unwrap();
    assert!(t.pids().contains(&600) && !t.pids().contains(&801));
    assert!(matches!(pid(&m, 801), Err(TargetError::NoProcess(801))));
    // A thread's number stands for its process.
    m.file("proc/900/status", "Name:\tx\nTgid:\t600\n");
    assert_eq!(pid(&m, 900).unwrap().pids()[0], 600);
}

#[test]
fn broken_state_of_engines_is_passed_over() {
    let m = Machine::new(V2);
    m.file("var/lib/containers/storage/overlay-containers/containers.json", "[{\"id\":");
    m.file(&format!("var/lib/docker/containers/{ID}/config.v2.json"), "\u{0}");
    m.file("run/runc/x/state.json", "{}");
    m.file("run/crun/x/status", "42");
    m.file("run/runsc/x.state", "null");
    m.symlink("/", "run/loop");
    m.proc(&Proc { pid: 600, ..Proc::default() });
    assert_eq!(pid(&m, 600).unwrap().deployment, "process");
    assert!(matches!(container(&m, "x"), Err(TargetError::NoContainer { .. })));
}
