//! The static first process of the lab; see `altaz_lab::agent`.

fn main() -> std::process::ExitCode {
    altaz_lab::agent::main()
}
