//! Tests of the supervision tree through its public interface, over a store that can fail.

mod fault_store;
mod faults;
mod scene;
mod shipping;
