//! The `altaz` command. Everything is in the library of the same name.

fn main() -> std::process::ExitCode {
    altaz::run(std::env::args_os())
}
