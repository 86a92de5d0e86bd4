//! The lab kernel's own function tracer, watching a service in the same deployment and under the
//! same load as altaz's recording, without altaz's instrument.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use altaz_e2e::During;
use altaz_e2e::lab::{lab_image, service, start};
use altaz_lab::{BootOptions, LabVm, NetNs};
use altaz_testkit::tracing_stats;

const MINUTE: Duration = Duration::from_secs(60);
/// No script takes longer.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(120));
const TRACING: &str = "/sys/kernel/tracing";

/// What the function tracer saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Functions, and what the processor was doing when they were entered.
    pub functions: BTreeMap<String, BTreeSet<During>>,
    /// How many events these were.
    pub events: u64,
    /// Events that the tracer lost.
    pub lost: u64,
}

/// A lab in which the service runs as a plain process.
pub struct TracedLab {
    vm: LabVm,
    address: String,
    service: u32,
}

impl TracedLab {
    /// Boots it and waits until the service answers.
    pub fn start(spec: &Path, program: &str) -> Self {
        let lab = lab_image(|_| ()).unwrap();
        let (spec, image) = service(spec, |_| ()).unwrap();
        let netns = NetNs::new().unwrap();
        let mut boot = BootOptions::new(&netns);
        boot.service_image = Some(&image);
        let vm = LabVm::boot(&lab, boot).unwrap();
        start(&vm, &spec, "process", Some(MINUTE)).unwrap();
        let mut this =
            Self { vm, address: format!("10.77.0.10:{}", spec.service.port), service: 0 };
        let begin = Instant::now();
        while !this.answers() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the service is never ready");
            std::thread::sleep(Duration::from_millis(200));
        }
        this.service = this.sh(&format!("pgrep -x {program}")).trim().parse().unwrap();
        this
    }

    /// Runs a script to its end and returns what it writes.
    fn sh(&self, script: &str) -> String {
        self.vm.script(script, TIMEOUT).unwrap()
    }

    /// The same; when the script says `armed`, `then` is done, and after it the script gets a line.
    fn sh_while(&self, script: &str, then: impl FnOnce() + Send) -> String {
        self.vm.script_while(script, TIMEOUT, then).unwrap().1
    }

    /// One request from outside; whether it was answered.
    fn answers(&self) -> bool {
        let (netns, address) = (self.vm.netns().clone(), self.address.clone());
        let ask = move || -> std::io::Result<String> {
            let mut connection = TcpStream::connect(address)?;
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            connection.write_all(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let asked = netns.spawn_thread("ask", ask).unwrap().join().unwrap();
        asked.and_then(|answer| answer).is_ok_and(|answer| answer.contains(" 200 "))
    }

    /// Load as altaz makes it.
    pub fn requests(&self, count: u32, pause: Duration) {
        for _ in 0..count {
            assert!(self.answers());
            std::thread::sleep(pause);
        }
    }

    /// The other names of functions: those that the kernel's symbol table has for the same address.
    pub fn aliases(&self) -> BTreeMap<String, BTreeSet<String>> {
        let text = String::from_utf8(self.vm.kallsyms().unwrap()).unwrap();
        let mut by_address: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                by_address.entry(address).or_default().insert(name);
            }
        }
        let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for names in by_address.values().filter(|names| names.len() > 1) {
            for name in names {
                let others = names.iter().filter(|n| *n != name).map(|n| (*n).to_owned());
                aliases.entry((*name).to_owned()).or_default().extend(others);
            }
        }
        aliases
    }

    /// Every function that the kernel can trace, in the kernel's order.
    pub fn traceable(&self) -> Vec<String> {
        let text = self.sh(&format!("cat {TRACING}/available_filter_functions"));
        text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// The functions that `trace-cmd record -p function` sees of the running service while it
    /// answers requests, with what the processor was doing.
    pub fn record_service(&self, requests: u32) -> Seen {
        // It traces until it is told to end.
        let script = format!(
            r#"
            trace-cmd record -p function -b 200000 -P {} -o /tmp/trace.dat >/tmp/log 2>&1 </dev/null &
            tries=0
            until [ "$(cat {TRACING}/current_tracer) $(cat {TRACING}/tracing_on)" = "function 1" ]; do
                tries=$((tries + 1))
                [ $tries -lt 100 ] || {{ cat /tmp/log >&2; exit 1; }}
                sleep 0.1
            done
            sleep 0.5
            echo armed
            read line
            {STATS}
            kill -INT $!
            wait $! || {{ cat /tmp/log >&2; exit 1; }}
            trace-cmd report -i /tmp/trace.dat 2>&1 | awk '
                /EVENTS DROPPED/ {{ print "lost", 1 }}
                {{
                    for (i = 2; i < NF && $i != "function:"; i++);
                    if ($i != "function:") next
                    flags = $(i - 2)
                    seen[substr(flags, 3, 1) " " $(i + 1)]++
                }}
                END {{ for (what in seen) print "seen {}", what, seen[what] }}'
            "#,
            self.service,
            self.service,
            STATS = tracing_stats(TRACING),
        );
        let text = self.sh_while(&script, || {
            // What the script's own programs left is freed a while after their end.
            std::thread::sleep(Duration::from_secs(2));
            self.requests(requests, Duration::from_millis(50));
        });
        self.parse(&text)
    }

    /// What the whole machine was doing when it entered these functions (`indexes` into
    /// [`TracedLab::traceable`], from 1), while the service answers requests.
    pub fn watch_functions(&self, indexes: &[usize], requests: u32) -> Seen {
        let list: Vec<String> = indexes.iter().map(ToString::to_string).collect();
        self.vm.put_file("/tmp/indexes", 0o644, list.join("\n").as_bytes()).unwrap();
        // The kernel takes one index a write.
        let script = format!(
            r#"
            cd {TRACING}/instances
            mkdir test
            cd test
            echo 100000 > buffer_size_kb
            while read index || [ -n "$index" ]; do echo $index; done < /tmp/indexes > set_ftrace_filter
            echo function > current_tracer
            echo armed
            read line
            echo 0 > tracing_on
            {STATS}
            for pid in $(ps -o pid= --ppid 2); do echo kernel-thread $pid; done
            awk '
                /^#/ {{ next }}
                match($0, /-[0-9]+ +\[[0-9]+\] /) {{
                    pid = substr($0, RSTART + 1) + 0
                    split(substr($0, RSTART + RLENGTH), field)
                    sub(/:$/, "", field[2])
                    seen[pid " " substr(field[1], 3, 1) " " field[3]]++
                }}
                END {{ for (what in seen) print "seen", what, seen[what] }}' trace
            echo nop > current_tracer
            cd ..
            rmdir test
            "#,
            STATS = tracing_stats("."),
        );
        let text = self.sh_while(&script, || self.requests(requests, Duration::from_millis(50)));
        self.parse(&text)
    }

    fn parse(&self, text: &str) -> Seen {
        let mut seen = Seen::default();
        let mut kernel_threads = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match *words.as_slice() {
                // These are counted by function below.
                ["events", _] => {}
                ["lost", count] => seen.lost += count.parse::<u64>().unwrap(),
                ["kernel-thread", pid] => {
                    kernel_threads.insert(pid.parse::<u32>().unwrap());
                }
                ["seen", pid, context, function, count] => {
                    let pid: u32 = pid.parse().unwrap();
                    let during = match context {
                        "h" | "H" | "z" | "Z" => During::Interrupt,
                        "s" => During::Softirq,
                        _ if pid == self.service => During::Service,
                        _ if pid == 0 => During::Idle,
                        _ if kernel_threads.contains(&pid) => During::KernelThread,
                        _ => During::OtherTask,
                    };
                    seen.functions.entry(function.to_owned()).or_default().insert(during);
                    seen.events += count.parse::<u64>().unwrap();
                }
                _ => panic!("the script wrote {line:?}"),
            }
        }
        seen
    }
}
