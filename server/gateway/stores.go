package gateway

import (
	"context"

	"carillon/server/auth"
	"carillon/server/catalog"
	catalogpebble "carillon/server/catalog/pebble"
	"carillon/server/embedded"
	"carillon/server/idgenerator"
	idpebble "carillon/server/idgenerator/pebble"
	"carillon/server/node"
	"carillon/server/push"
	"carillon/server/register"
	registermemory "carillon/server/register/memory"
	"carillon/server/saver"
	saverpebble "carillon/server/saver/pebble"
	"carillon/server/task"
	taskpebble "carillon/server/task/pebble"
)

// stores is what a node keeps, wherever that is.
type stores struct {
	saver    saver.Store
	register register.Register
	catalog  catalog.Catalog
	tasks    task.Store
	blocks   idgenerator.Blocks
	notices  node.Notices     // nil: the node is alone
	tickets  auth.TicketStore // nil: they lie in the memory of each node

	lastRooms func() []register.Room // as they were known last; nil: the node is alone

	run    func(context.Context) error                       // what goes on in the background, until the context ends
	backup func(ctx context.Context, directory string) error // copies all of it; nil: that is not ours to do
}

// openEmbedded opens the stores of a node that is alone.
func (g *Gateway) openEmbedded() (s stores, err error) {
	cfg := &g.cfg
	db, err := embedded.Open(embedded.Config{
		Dir: cfg.Data, FS: cfg.FS, Rand: cfg.Rand, Log: cfg.Log, CacheBytes: cfg.CacheBytes,
	})
	if err != nil {
		return s, err
	}
	g.onClose(db.Close)
	g.metrics.MustRegister(storeMetrics(db)...)
	s.backup = func(_ context.Context, directory string) error { return db.Checkpoint(directory) }

	if s.catalog, err = catalogpebble.New(catalogpebble.Config{DB: db, Clock: cfg.Clock}); err != nil {
		return s, err
	}
	g.onClose(s.catalog.Close)

	if s.tasks, err = taskpebble.New(taskpebble.Config{DB: db, Clock: cfg.Clock}); err != nil {
		return s, err
	}
	g.onClose(s.tasks.Close)

	reg := registermemory.New(registermemory.Config{Clock: cfg.Clock})
	s.register = reg
	g.onClose(reg.Close)
	store, err := saverpebble.New(saverpebble.Config{
		DB: db, Clock: cfg.Clock, Rand: cfg.Rand, Locator: reg, Log: cfg.Log, Limits: g.limits,
	})
	if err != nil {
		return s, err
	}
	s.saver, s.run = store, store.Run
	g.onClose(store.Close)
	s.blocks, err = idpebble.New(idpebble.Config{DB: db, Clock: cfg.Clock})
	return s, err
}

// limits returns a product's limits for the store's sweep; the defaults if there is no such product.
func (g *Gateway) limits(p push.ProductID) push.Limits {
	prod, err := g.cache.LookupProduct(context.Background(), p)
	if err != nil {
		return push.Limits{}.WithDefaults()
	}
	return prod.Limits.WithDefaults()
}
