//! Who starts whom? Wires the rooms, starts and stops them in order.
