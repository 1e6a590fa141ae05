//! walrust
