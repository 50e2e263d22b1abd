package embedded

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
)

// Checkpoint makes a copy of the database, as it is at some moment during the call, in a directory that does not exist
// yet and lies outside the database's own. Everything committed before the call is in it. Files are linked where the
// file system can, so it is quick, and cheap until the original has moved on. The copy is opened like any other
// database, and gets a lineage of its own by that. A checkpoint that fails is removed again, as far as that goes.
func (db *DB) Checkpoint(dir string) error {
	own, to := filepath.Clean(db.dir), filepath.Clean(dir)
	if dir == "" || to == own || strings.HasPrefix(to, own+string(filepath.Separator)) {
		return push.Errorf(push.KindInvalid, "backup_dir", "a backup needs a directory outside the data directory")
	}
	if err := db.Health(); err != nil {
		return err
	}
	if err := db.uses.acquire(); err != nil {
		return err
	}
	defer db.uses.release()
	if _, err := db.fs.Stat(to); err == nil {
		return push.Errorf(push.KindConflict, "backup_exists", "the directory %q exists already", dir)
	}
	if err := db.pdb.Checkpoint(to, pebble.WithFlushedWAL()); err != nil {
		err = fmt.Errorf("embedded: checkpoint: %w", err)
		return errors.Join(err, db.fs.RemoveAll(to))
	}
	if err := db.fault.get(); err != nil {
		return errors.Join(err, db.fs.RemoveAll(to))
	}
	return nil
}
