//! Prints the seccomp profile that is shipped as `manifests/seccomp/ringside.json`.

fn main() {
    print!("{}", ringside_tests::seccomp::shipped());
}
