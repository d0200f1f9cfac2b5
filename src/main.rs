//! The binary: the command line with the drive behind it.

fn main() {
    std::process::exit(fourwheel::cli::run(&fourwheel::app::hooks()));
}
