//! What both sides of Ringside speak: the settings a relay obeys, how they merge and what they allow.
//! It owns names, units, defaults and validation; it never does I/O.
