//! Generates messages, server and client from the service's definition; no `protoc` is needed.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto/fastmig.proto");
    ttrpc_codegen::Codegen::new()
        .input("proto/fastmig.proto")
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(ttrpc_codegen::ProtobufCustomize::default().gen_mod_rs(true))
        .customize(ttrpc_codegen::Customize { async_all: true, gen_mod: true, ..Default::default() })
        .run()
}
