//! Tells cargo that the migrations are embedded in the server: a new file must rebuild it.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
