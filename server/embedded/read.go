package embedded

import (
	"errors"
	"fmt"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
)

// Get appends the value of key to dst and reports whether there is one. It sees every batch whose Commit has returned.
func (db *DB) Get(dst, key []byte) (value []byte, found bool, err error) {
	if err := db.uses.acquire(); err != nil {
		return dst, false, err
	}
	defer db.uses.release()
	v, closer, err := db.pdb.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, readError("get", err)
	}
	dst = append(dst, v...)
	if err := closer.Close(); err != nil {
		return dst, false, readError("get", err)
	}
	return dst, true, nil
}

// Iter walks a range of keys as it was when it was made: writes that come later are not seen. It belongs to one
// goroutine, which closes it.
type Iter struct {
	db *DB
	it *pebble.Iterator
}

// Scan returns an iterator over the keys from lower on and below upper (nil: no bound); it stands before the first.
func (db *DB) Scan(lower, upper []byte) (*Iter, error) {
	if err := db.uses.acquire(); err != nil {
		return nil, err
	}
	it, err := db.pdb.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		db.uses.release()
		return nil, readError("scan", err)
	}
	return &Iter{db: db, it: it}, nil
}

// ScanPrefix returns an iterator over all keys with that prefix.
func (db *DB) ScanPrefix(prefix []byte) (*Iter, error) { return db.Scan(prefix, PrefixEnd(prefix)) }

// First, Last, Next, Prev and SeekGE (to the first key not below key) move and report whether they found a key. Once
// one of them returned false, Err says whether that was the end.
func (i *Iter) First() bool            { return i.it.First() }
func (i *Iter) Last() bool             { return i.it.Last() }
func (i *Iter) Next() bool             { return i.it.Next() }
func (i *Iter) Prev() bool             { return i.it.Prev() }
func (i *Iter) SeekGE(key []byte) bool { return i.it.SeekGE(key) }

// Key returns the present key, valid until the next move.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value returns the present value, valid until the next move.
func (i *Iter) Value() ([]byte, error) {
	v, err := i.it.ValueAndErr()
	if err != nil {
		return nil, readError("scan", err)
	}
	return v, nil
}

// Err returns what stopped the walk; nil at the end of the range.
func (i *Iter) Err() error {
	if err := i.it.Error(); err != nil {
		return readError("scan", err)
	}
	return nil
}

// Close ends the walk and returns what stopped it, as Err. Calling it again does nothing.
func (i *Iter) Close() error {
	if i.it == nil {
		return nil
	}
	err := i.it.Close()
	i.it = nil
	i.db.uses.release()
	if err != nil {
		return readError("scan", err)
	}
	return nil
}

// readError tells a caller that stored bytes could not be had: damaged, or unreadable.
func readError(op string, err error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "storage_unreadable", Err: fmt.Errorf("embedded: %s: %w", op, err)}
}
