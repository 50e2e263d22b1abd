package task

import (
	"context"
	"errors"
	"time"

	"carillon/server/push"
)

// Store keeps tasks, lists and counts. All methods are safe for concurrent use. Errors are *push.Error; one of KindUnavailable
// means that nothing is known of a write. Results belong to the caller. After Close every method fails with KindClosed.
type Store interface {
	// Create stores a task; Revision and Created are set by the store, whose clock t.Created shows. With a key it happens once: a repeat with the same
	// digest within KeyKept returns the task as it was made, and repeated; KindKeyReused, "idempotency_key_reused": the key came with
	// another digest. KindConflict, "task_exists": there is one of that id, which is another (one that is equal but for Revision and Created is
	// the same: making it again changes nothing).
	// It does not look at what else stands in t: Wake is the caller's to set.
	Create(ctx context.Context, t Task, key Key) (made Task, repeated bool, err error)
	// Task returns a task. KindNotFound, "task_not_found".
	Task(ctx context.Context, p push.ProductID, id push.MsgID) (Task, error)
	// Tasks returns tasks of a product, the newest ids first.
	Tasks(ctx context.Context, q Query) (Page, error)
	// Update reads a task, has change change it, and stores it with the next revision, unless it changed meanwhile: then it begins again, so that change may be
	// called more than once. now is the store's clock, of the moment of the read. An error of change is returned as it is, and nothing is stored; with ErrUnchanged nothing is stored, and there is no
	// error. The task is stored at the store's durability when it returns. Product, ID, Revision and Created are the store's, whatever change does to them.
	// Other calls may be made from change. KindNotFound, "task_not_found".
	Update(ctx context.Context, p push.ProductID, id push.MsgID, change func(t *Task, now push.MilliTime) error) (Task, error)
	// Due returns tasks of all products whose Wake is not 0 and not after now, those of the earliest Wake first (of one Wake by id), at most limit, and the store's clock.
	Due(ctx context.Context, limit int) ([]Ref, push.MilliTime, error)
	// Delete forgets a task that has ended, its counts too. It reports whether there was one. KindConflict, "task_move": it has not ended.
	Delete(ctx context.Context, p push.ProductID, id push.MsgID) (bool, error)

	// SetSwitch turns all tasks of a product off, or on again. By is who did it.
	SetSwitch(ctx context.Context, p push.ProductID, s Switch) error
	// Switch returns the product's switch; the zero Switch is on.
	Switch(ctx context.Context, p push.ProductID) (Switch, error)

	// PutChunks stores chunks of a list that is not created yet. A chunk that is stored twice is the same one. An error may have stored some. KindInvalid, "bad_chunk" ([CheckChunk]):
	// none is stored.
	PutChunks(ctx context.Context, ref ListRef, cs []Chunk) error
	// CreateList stores what is known of a list, whose chunks are all stored; from then on there is one. Making the same again changes nothing. Chunks of a list
	// that never comes to be go after ListKept, or a day later. KindConflict, "list_incomplete": some of l.Chunks are not stored, or not any more;
	// "list_exists": there is another list of that id.
	CreateList(ctx context.Context, l List) (List, error)
	// List returns a list. KindNotFound, "list_not_found".
	List(ctx context.Context, ref ListRef) (List, error)
	// Lists returns lists of a product, the newest ids first, those made for tasks not among them.
	Lists(ctx context.Context, p push.ProductID, before push.MsgID, limit int) ([]List, error)
	// Chunks returns chunks of one shard of a list, from number from on, at most limit, in order; fewer if there are no more, none if the list was deleted. Of a list that has
	// outlived its time, or is not created yet, it may return them or not.
	Chunks(ctx context.Context, ref ListRef, s push.Shard, from, limit int) ([]Chunk, error)
	// KeepList has a list live for ListKept from now on, chunks too. KindNotFound, "list_not_found".
	KeepList(ctx context.Context, ref ListRef) error
	// DeleteList forgets a list and its chunks, and reports whether there was one. Of one that is not created yet, chunks may be forgotten, or go when it would not have been.
	DeleteList(ctx context.Context, ref ListRef) (bool, error)

	// Count adds to the counts of tasks. It is not repeated by anybody: an error may have counted or not, unless [NotCounted]. What is counted of a task that is not
	// there is lost, without an error. A power loss may take back what the last moments counted, and never a part of what one call did for a task.
	Count(ctx context.Context, cs []Counted) error
	// Counts returns what was counted of a task's message, by the life of a room that counted it; nil if nothing was.
	Counts(ctx context.Context, p push.ProductID, id push.MsgID) (map[Life]Counts, error)

	// Sweep clears away what has outlived its time: tasks Kept after their end, lists, keys. It does a part, and reports whether there may be more. Whoever
	// runs tasks calls it now and then; two at once do no harm.
	Sweep(ctx context.Context) (more bool, err error)

	// Close releases the store. Calling it again does nothing.
	Close() error
}

// Ref names a task. ListRef names a list of users.
type (
	Ref struct {
		Product push.ProductID
		ID      push.MsgID
	}
	ListRef struct {
		Product push.ProductID
		ID      push.MsgID
	}
)

// Key is the sender's name for the request that makes a task, and a digest of what it asks for. Without a Name there is none.
type Key struct {
	Name   string
	Digest [32]byte
}

// Switch stops all tasks of a product while Off.
type Switch struct {
	Off    bool   `json:"off"`
	Reason string `json:"reason,omitempty"`
	By     Actor  `json:"by,omitzero"`
}

// Query asks for a part of the tasks of a product.
type Query struct {
	Product push.ProductID
	States  []State    // any of them; none: all
	Parent  push.MsgID // occurrences of that one alone; 0: all
	Before  push.MsgID // below that id; 0: from the newest on
	Limit   int        // 1 to MaxPage
}

// MaxPage is how many tasks, or lists, a page has at most.
const MaxPage = 200

// scanMost is how many tasks are looked at for a page whose filter few pass.
const scanMost = 2000

// Page is a part of the tasks of a product. Before continues it; 0: nothing comes after it. It may be short, or empty, and still go on, where few pass the filter.
type Page struct {
	Tasks  []Task
	Before push.MsgID
}

// Matches reports whether a task passes the query's filter.
func (q *Query) Matches(t *Task) bool {
	ok := len(q.States) == 0
	for _, s := range q.States {
		ok = ok || s == t.State
	}
	return ok && (q.Parent == 0 || q.Parent == t.Parent)
}

// Check returns what is wrong with the query. KindInvalid, "bad_page".
func (q *Query) Check() error {
	if q.Limit < 1 || q.Limit > MaxPage {
		return push.Errorf(push.KindInvalid, "bad_page", "a page has 1 to %d items", MaxPage)
	}
	return nil
}

// CheckLimit returns what is wrong with the limit of a page of lists. KindInvalid, "bad_page".
func CheckLimit(limit int) error { return (&Query{Limit: limit}).Check() }

// ScanMost returns how many tasks a store looks at for one page.
func ScanMost() int { return scanMost }

// ErrUnchanged is what change returns to Update when nothing is to be stored.
var ErrUnchanged = push.Errorf(push.KindConflict, "unchanged", "nothing is to be stored")

// ErrNotFound returns the error for a task that is not there.
func ErrNotFound() error {
	return push.Errorf(push.KindNotFound, "task_not_found", "there is no such task")
}

// ErrListNotFound returns the error for a list that is not there.
func ErrListNotFound() error {
	return push.Errorf(push.KindNotFound, "list_not_found", "there is no such list; a list is kept for %d days after it was used last", int(ListKept.Hours()/24))
}

// ErrExists returns the error for a task's id that is another one's.
func ErrExists() error {
	return push.Errorf(push.KindConflict, "task_exists", "there is a task of that id")
}

// ErrKeyReused returns the error for an idempotency key that came with another request.
func ErrKeyReused() error {
	return push.Errorf(push.KindKeyReused, "idempotency_key_reused", "the idempotency key came with another request before")
}

// ErrListExists returns the error for a list's id that is another one's.
func ErrListExists() error {
	return push.Errorf(push.KindConflict, "list_exists", "there is another list of that id")
}

// ErrListIncomplete returns the error for a list whose chunks are not all there.
func ErrListIncomplete() error {
	return push.Errorf(push.KindConflict, "list_incomplete", "a part of the list is not stored, or was forgotten by now; upload it again")
}

// ErrNotEnded returns the error for deleting a task that has not ended.
func ErrNotEnded(s State) error {
	return push.Errorf(push.KindConflict, "task_move", "a task that is %s cannot be deleted; stop it first", s)
}

// ErrClosed returns the error of every call after Close.
func ErrClosed() error { return push.Errorf(push.KindClosed, "closed", "the store of tasks is closed") }

// ErrUnavailable returns the error of a call that could not take place, or of which nobody knows whether it did.
func ErrUnavailable(err error) error {
	var e *push.Error
	if errors.As(err, &e) && e.Kind == push.KindUnavailable {
		return err
	}
	return &push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", Detail: "the store of tasks cannot be reached", After: time.Second, Err: err}
}

// NotCounted reports whether an error of Count says that nothing was counted, so that the same may be counted again.
func NotCounted(err error) bool {
	var e *push.Error
	return errors.As(err, &e) && e.Kind == push.KindUnavailable && (e.Code == "store_busy" || e.Code == "store_full" || e.Code == "store_weak")
}
