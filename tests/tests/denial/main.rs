//! Some clients are hostile, and the others are served all the same.
//!
//! The tests judge what no busy machine can fail: nobody's connection ends or stands still, what is to be refused is
//! refused, and what attackers get through the relay while a victim waits for one answer is little (`trial`). How much
//! slower victims' answers become is measured, by the same code, with `make denial` (`measuring`).

mod admin;
mod attackers;
mod floods;
mod half_open;
mod measuring;
mod slow;
mod table;
mod trial;
mod victims;
