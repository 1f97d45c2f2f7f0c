//! Says what to do when the operator's page, which is embedded, has not been built.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=web/dist");
    if !Path::new("web/dist/index.html").is_file() {
        println!(
            "cargo::error=bootserver/web/dist is not there: the operator's page is embedded, build it first by `make page`"
        );
    }
}
