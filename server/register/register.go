// Package register is the contract over who is online where: which room holds which device of a user, since when, and
// under which epoch.
//
// # Place in the flow
//
// A room holds a lease, named by its room id and the boot id of this life of it. It inserts a session before it reads the
// slots of that device, and removes it when the session ends. Publishers look users up after they stored. So either the
// publisher sees the session, or the session's reading sees the message.
//
// # Invariants
//
//   - A device has at most one session. Inserting another replaces it, whatever room held it; the one replaced is told to
//     its room as an order (the inserting room included), so that the room ends it even if every direct word to it is lost.
//   - A session comes in only where the session policy leaves it a place, or makes one by sending others of its user off,
//     which are told like one that was replaced. Deciding and inserting are one step: of two that race for the last place one
//     gets it.
//   - Epochs rise: the session inserted later has the higher epoch, across restarts of the register too.
//   - A session whose client goes on in another one is told from one whose device connected a second time ([Order.Continues]): who
//     comes back does not send itself away.
//   - Remove is compare-and-delete on epoch and boot: a late goodbye never deletes a newer session.
//   - Sessions of a boot that is not the room's present one, or whose lease ran out, do not count anywhere.
package register

import (
	"context"
	"time"

	"carillon/server/push"
)

// Register says who is online where. All methods are safe for concurrent use. It never calls back. A register also
// satisfies saver.Locator where stores need one.
type Register interface {
	// Join begins a new life of a room: sessions of its earlier boots stop counting. The lease runs for LeaseTTL. Joining
	// again with the present boot prolongs a lease that holds and keeps its sessions.
	Join(ctx context.Context, room Room) error
	// Renew prolongs the lease by LeaseTTL and returns, once each, the orders that came up since the last renewal.
	// KindConflict, code "lease_lost": another boot joined under this room id, or the lease ran out and its sessions no
	// longer count, or the register lies in a store that fell back or lost some of them; the room joins again and inserts its
	// sessions anew.
	Renew(ctx context.Context, room push.RoomID, boot push.BootID) ([]Order, error)
	// Leave ends the lease; the room's sessions stop counting. It does nothing for a boot that is not the present one.
	Leave(ctx context.Context, room push.RoomID, boot push.BootID) error
	// Rooms returns the rooms whose lease holds.
	Rooms(ctx context.Context) ([]Room, error)

	// Insert registers a session of a room whose lease holds (otherwise KindConflict, "lease_lost"), gives it its epoch and
	// returns it with all that had to go for it and counted: the session of the same device, if there was one, and those of
	// the user that the limits, which Admit explains, send off. They are what the product's policy says of a session on that
	// platform; nil is no limit. KindConflict, "session_limit": they turn it away, and nobody went.
	//
	// The register may keep the strings of s for as long as it keeps the session: the caller gives ones that hold on to
	// nothing larger. With Epoch already set it is a re-insert after a lost lease: it takes place only if no session of the
	// device with a higher epoch is there and the limits leave it the place that its age gives it, otherwise KindConflict,
	// code "continued", "replaced" or "session_limit". Without, Row is the session that its client says it had before, and
	// KindConflict, "replaced", says that another client has taken that one's place; see [Succeed].
	Insert(ctx context.Context, s Session, limits []push.SessionLimit) (Inserted, error)
	// Remove deletes the session if it is still that epoch and boot, and reports whether it did.
	Remove(ctx context.Context, k Key, epoch push.SessionEpoch, boot push.BootID) (bool, error)
	// Lookup returns where each user is: the sessions that count, with what a publisher needs of them. The result is as long as users. Whoever
	// keeps a device's name may keep what the register read with it.
	Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]Found, error)
	// Count returns how many sessions that count a product has, at constant cost.
	Count(ctx context.Context, p push.ProductID) (int, error)

	// TellTags notes which tags a room whose lease holds (otherwise KindConflict, "lease_lost") may hold from now on. Calls of one
	// room come one after the other. News that rely on earlier ones which the register does not have, KindConflict, "tags_lost", have no effect; after
	// that, and after any other failure, nobody knows what it has, until it was told all. Without any change it is asked
	// whether what was told before is still there; a room asks now and then (TagsKept).
	TellTags(ctx context.Context, room push.RoomID, boot push.BootID, news TagNews) error
	// RoomsByTags returns the rooms whose lease holds, and which of these tags each may hold, by id and in one round trip. Whatever was told
	// before the call is in it.
	RoomsByTags(ctx context.Context, p push.ProductID, tags []push.Tag) ([]RoomTags, error)

	// Close releases the register; every later call fails with KindClosed.
	Close() error
}

// LeaseTTL is how long a room's sessions count after its last renewal; RenewEvery is how often rooms renew. A room that
// could not renew for ZombieAfter begins no write to a client.
const (
	LeaseTTL    = 10 * time.Second
	RenewEvery  = time.Second
	ZombieAfter = 3 * time.Second
)

// TagsKept is for how long a register keeps, at least, what a room told of its tags and did not confirm since.
const TagsKept = 10 * time.Minute

// Room is a node that holds sessions.
type Room struct {
	ID   push.RoomID
	Boot push.BootID
	Addr string // where other nodes reach it; empty in a single process
}

// Key names a device's place in the register.
type Key struct {
	Product push.ProductID
	User    push.UserID
	Device  push.DeviceID
}

// Session is one live connection of a device to a room.
type Session struct {
	Key
	Shard     push.Shard
	Platform  push.Platform
	Class     string
	Transport string // transport.Kind
	TokenID   string // jti of the token, may be empty
	Room      push.RoomID
	Boot      push.BootID
	Epoch     push.SessionEpoch
	Since     push.MilliTime

	// Row is the first of the sessions that the same client had one after the other, as far as is known, this one being the last; 0:
	// this one.
	Row push.SessionEpoch
}

// Found is a session as a look-up tells it. A request may look up many thousands of users, so it is no more than senders need.
type Found struct {
	Room   push.RoomID
	Device push.DeviceID
	Epoch  push.SessionEpoch
}

// Inserted is the answer of Insert.
type Inserted struct {
	Session  Session   // with its epoch
	Replaced []Session // that had to go, that of the same device first
}

// Order tells a room to end a session.
type Order struct {
	Key
	Epoch push.SessionEpoch // end it if it is this epoch or an older one
	By    Session           // the session that took its place
}
