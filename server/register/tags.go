package register

import "carillon/server/push"

// A room tells the register which tags its sessions have between them, so that who sends to tags need not bother rooms in which nobody
// can be meant. A tag is told before a session has it, and taken back some time after the last one has lost it: what a
// register says of a tag that it does not know is certain, and of one that it knows it is not.
//
// What was told belongs to the life of the room that told it, and goes with its lease. A room that has told nothing may hold any tag: one of an
// earlier version, and one that has just joined.

// TagOf is a tag of a product.
type TagOf struct {
	Product push.ProductID
	Tag     push.Tag
}

// TagNews is what a room tells of the tags that its sessions have.
type TagNews struct {
	// All says that Add is all there is, whatever was told before. It is needed once in each life of the room.
	All bool
	Any bool // with All: there are too many; the room may hold any tag
	// Of a tag that is in both, Add counts.
	Add, Remove []TagOf
}

// CodeTagsLost is the code of the error of a room that adds to what the register does not have.
const CodeTagsLost = "tags_lost"

// RoomTags says which of the tags that were asked for a room may hold.
type RoomTags struct {
	Room push.RoomID
	Any  bool   // nobody knows: it may hold any
	Has  []bool // for each tag; nil with Any
}
