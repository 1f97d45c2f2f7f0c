//! `domain-resume DOMID`: has libxenlight resume a suspended domain, which `xl` of 4.17 has no word for.
//!
//! Owns: one call. Never does: renaming, deciding. It is a program of its own, and not static, because libxenlight may leave a process in any
//! state, and needs the C library of the dom0 that it lies in.
//!
//! Signatures as in libxl.h and xentoollog.h of 4.17; `libxl_ctx_alloc` takes LIBXL_VERSION 0.

use libloading::{Library, Symbol};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::process::ExitCode;
use std::ptr::{null, null_mut};

type CreateLogger = unsafe extern "C" fn(*mut c_void, c_int, c_uint) -> *mut c_void;
type CtxAlloc = unsafe extern "C" fn(*mut *mut c_void, c_int, c_uint, *mut c_void) -> c_int;
type Resume = unsafe extern "C" fn(*mut c_void, u32, c_int, *const c_void) -> c_int;
type CtxFree = unsafe extern "C" fn(*mut c_void) -> c_int;
type Fdopen = unsafe extern "C" fn(c_int, *const c_char) -> *mut c_void;

/// XTL_WARN.
const LEVEL: c_int = 7;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [domid] = &words[..] else {
        eprintln!("usage: domain-resume DOMID");
        return ExitCode::from(2);
    };
    let Ok(domid) = domid.parse() else {
        eprintln!("domain-resume: {domid:?} is no domain number");
        return ExitCode::from(2);
    };
    match resume(domid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("domain-resume {domid}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn resume(domid: u32) -> Result<(), String> {
    let open = |name: &str| {
        // SAFETY: these libraries' initialisers do nothing but set up themselves.
        unsafe { Library::new(name) }.map_err(|e| format!("opening {name}: {e}"))
    };
    let toollog = open("libxentoollog.so.1")?;
    let xenlight = open("libxenlight.so.4.17")?;
    let c = open("libc.so.6")?;
    // SAFETY: names and signatures are those of the headers of these very versions.
    let (fdopen, create_logger) =
        unsafe { (get::<Fdopen>(&c, "fdopen")?, get::<CreateLogger>(&toollog, "xtl_createlogger_stdiostream")?) };
    // SAFETY: as above.
    let (ctx_alloc, ctx_free) =
        unsafe { (get::<CtxAlloc>(&xenlight, "libxl_ctx_alloc")?, get::<CtxFree>(&xenlight, "libxl_ctx_free")?) };
    // SAFETY: as above.
    let domain_resume = unsafe { get::<Resume>(&xenlight, "libxl_domain_resume")? };
    // SAFETY: called in the order that libxl.h asks for, each result checked before it is used.
    unsafe {
        let stderr = fdopen(2, c"w".as_ptr());
        let logger = if stderr.is_null() { null_mut() } else { create_logger(stderr, LEVEL, 0) };
        if logger.is_null() {
            return Err("no logger could be made".to_owned());
        }
        let mut ctx = null_mut();
        let rc = ctx_alloc(&mut ctx, 0, 0, logger);
        if rc != 0 {
            return Err(format!("libxl_ctx_alloc: {rc}"));
        }
        // Co-operative (1), as xl migrate itself resumes: the guest's suspend call returns "cancelled".
        let rc = domain_resume(ctx, domid, 1, null());
        ctx_free(ctx);
        if rc == 0 { Ok(()) } else { Err(format!("libxl_domain_resume: {rc}")) }
    }
}

/// # Safety
/// `T` must be the symbol's type.
unsafe fn get<'lib, T>(library: &'lib Library, name: &str) -> Result<Symbol<'lib, T>, String> {
    // SAFETY: passed on to the caller.
    unsafe { library.get(name.as_bytes()) }.map_err(|e| format!("finding {name}: {e}"))
}
