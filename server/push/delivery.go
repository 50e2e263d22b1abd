package push

import "context"

// Delivery is what a publisher tells one room: a hint. Everything persistent in it lies in slots already, so a room may
// drop it when it is short of something, and reads the slots later. It is shared; nobody changes it.
//
// One to a room of which it is thought that nobody there is meant may leave the message out (IsBare): the room passes over the entries
// for all whom the filter does not let through, and reads them for anybody whom it does.
type Delivery struct {
	Product ProductID
	Message *Message // nil if it is a recall, or left out
	Recall  MsgID    // the message taken back; 0: it is no recall
	Lineage Lineage  // of the store at the append

	// A persistent message, or a recall: the entries that the room's sessions may read.
	Own    []OwnPlace
	Common []CommonPlace

	// A non-persistent message: who of those online it is for.
	Users    []UserFilter
	Everyone bool

	Filter *Filter // with Common and Everyone
}

// IsBare reports whether the delivery says where the entries of a message are, and not what it says.
func (d *Delivery) IsBare() bool { return d.Message == nil && d.Recall == 0 }

// OwnPlace is an entry in a user's own slot.
type OwnPlace struct {
	User   UserID
	Place  Place
	Filter *Filter
}

// CommonPlace is an entry in a shard's common slot.
type CommonPlace struct {
	Shard Shard
	Place Place
}

// UserFilter is a user and which of the user's devices are meant.
type UserFilter struct {
	User   UserID
	Filter *Filter
}

// LiveSession is what a room knows of one of its sessions.
type LiveSession struct {
	Device    DeviceID
	Platform  Platform
	Class     string
	Transport string
	Room      RoomID
	Epoch     SessionEpoch
	Since     MilliTime
	Sent      Cursor // everything up to here was handed to the kernel, or passed over
	Acked     Cursor // as the client told this session
	Tags      []Tag  // of its token, given, and joined; sorted, each once
}

// Rooms is how publishers reach the rooms of the cluster. Implementations are safe for concurrent use.
type Rooms interface {
	// Deliver hands a delivery to a room. It does not wait for sessions; a delivery to a room that cannot be reached is
	// dropped and counted.
	Deliver(room RoomID, d *Delivery)
	// Sessions returns the live sessions of a user, in all rooms that answer.
	Sessions(ctx context.Context, p ProductID, u UserID) ([]LiveSession, error)
	// End ends the sessions of a device for good, with reason "deleted", in all rooms that answer.
	End(ctx context.Context, p ProductID, u UserID, d DeviceID) error
	// Kick ends sessions of a user in all rooms, also those that are still being opened, and says how certain that is. An
	// error means that nobody knows; the call may be repeated.
	Kick(ctx context.Context, p ProductID, u UserID, k Kick) (Kicked, error)
	// Retag has the sessions of users, in all rooms, look again at the tags that are kept for them. Without an error they have
	// done so; the call may be repeated.
	Retag(ctx context.Context, p ProductID, users []UserID) error
}

// Kick says which of a user's sessions end, and why.
type Kick struct {
	Kind    KickKind
	Device  DeviceID // empty: on any device
	TokenID string   // empty: whatever their token
	Reason  string   // told to the client for people, at most 200 bytes; may be empty
}

// KickKind is what a kick leaves the client: the token it has, or not.
type KickKind uint8

// The kinds.
const (
	KickKicked  KickKind = iota // its token still holds
	KickRevoked                 // its token does not hold any more
)

// Kicked is what became of a kick.
type Kicked struct {
	Sessions int       // that ended, as far as is known
	Certain  MilliTime // when the last room has obeyed at the latest; 0: all have
}
