BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE attempts (
	session_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	lineage TEXT NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_attempts PRIMARY KEY (session_id, attempt), 
	CONSTRAINT fk_attempts_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "attempts" VALUES(1,1,0,'','[[1,1,0]]','','2026-11-28T19:10:47.998+00:00');
INSERT INTO "attempts" VALUES(1,2,8,'restart','[[1,1,0],[1,2,8]]','somebody','2026-11-28T19:10:48.416+00:00');
INSERT INTO "attempts" VALUES(2,1,0,'','[[2,1,0]]','','2026-11-28T19:10:48.558+00:00');
INSERT INTO "attempts" VALUES(3,1,10,'','[[1,1,0],[1,2,8],[3,1,10]]','','2026-11-28T19:10:48.604+00:00');
CREATE TABLE events (
	session_id INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	payload TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, at BIGINT, 
	CONSTRAINT pk_events PRIMARY KEY (session_id, seq), 
	CONSTRAINT fk_events_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "events" VALUES(1,0,1,'decided','{"controller":0,"metric":"loss","step":2,"value":1.05,"at":3,"reason":"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)","before":{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false},"after":{"best":1.05,"bad":0,"cooldown":0,"good":0,"told":false},"levels":{"lr":[0.1,0.05]}}','2026-11-28T19:10:48.131+00:00',3);
INSERT INTO "events" VALUES(1,1,1,'decided','{"controller":0,"metric":"loss","step":4,"value":1.05,"at":5,"reason":"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)","before":{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false},"after":{"best":1.05,"bad":0,"cooldown":0,"good":0,"told":false},"levels":{"lr":[0.05,0.025]}}','2026-11-28T19:10:48.185+00:00',5);
INSERT INTO "events" VALUES(1,2,1,'decided','{"controller":0,"metric":"loss","step":6,"value":1.05,"at":7,"reason":"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)","before":{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false},"after":{"best":1.05,"bad":0,"cooldown":0,"good":0,"told":false},"levels":{"lr":[0.025,0.0125]}}','2026-11-28T19:10:48.251+00:00',7);
INSERT INTO "events" VALUES(1,3,1,'decided','{"controller":0,"metric":"loss","step":8,"value":1.05,"at":9,"reason":"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)","before":{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false},"after":{"best":1.05,"bad":0,"cooldown":0,"good":0,"told":false},"levels":{"lr":[0.0125,0.00625]}}','2026-11-28T19:10:48.313+00:00',9);
INSERT INTO "events" VALUES(1,4,1,'decided','{"controller":0,"metric":"loss","step":10,"value":1.05,"at":11,"reason":"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)","before":{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false},"after":{"best":1.05,"bad":0,"cooldown":0,"good":0,"told":false},"levels":{"lr":[0.00625,0.003125]}}','2026-11-28T19:10:48.347+00:00',11);
INSERT INTO "events" VALUES(1,5,1,'ordered','{"order":{"id":1,"at":14,"action":{"reason":"a spike","groups":null,"kind":"scale","factor":0.5},"actor":"somebody","key":""},"notice":{"step":12,"code":"large_change","message":"from step 14 the learning rate is scaled by 0.5: a spike: save a checkpoint before it"}}','2026-11-28T19:10:48.374+00:00',14);
INSERT INTO "events" VALUES(1,6,1,'ordered','{"order":{"id":2,"at":30,"action":{"reason":"","groups":null,"kind":"hold"},"actor":"somebody","key":""}}','2026-11-28T19:10:48.396+00:00',30);
INSERT INTO "events" VALUES(1,7,2,'attempt_opened','{"attempt":2,"at":8,"key":"restart","actor":"somebody","kept":[1,2]}','2026-11-28T19:10:48.416+00:00',8);
INSERT INTO "events" VALUES(1,8,2,'acted','{"order":{"id":1,"at":14,"action":{"reason":"a spike","groups":null,"kind":"scale","factor":0.5},"actor":"somebody","key":""}}','2026-11-28T19:10:48.535+00:00',14);
INSERT INTO "events" VALUES(3,0,1,'forked','{"session":"plateau","attempt":2,"at":10,"actor":"somebody"}','2026-11-28T19:10:48.604+00:00',10);
CREATE TABLE labels (
	session_id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	value VARCHAR(256) NOT NULL, 
	CONSTRAINT pk_labels PRIMARY KEY (session_id, name), 
	CONSTRAINT fk_labels_session_id_sessions FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "labels" VALUES(1,'team','vision');
INSERT INTO "labels" VALUES(3,'team','vision');
CREATE TABLE measurements (
	session_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	metric_id INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	value DOUBLE, 
	ranks INTEGER NOT NULL, 
	horizon BIGINT NOT NULL, 
	CONSTRAINT pk_measurements PRIMARY KEY (session_id, attempt, metric_id, step)
)
 WITHOUT ROWID

;
INSERT INTO "measurements" VALUES(1,1,1,0,1.05,2,1);
INSERT INTO "measurements" VALUES(1,1,1,1,1.05,2,2);
INSERT INTO "measurements" VALUES(1,1,1,2,1.05,2,3);
INSERT INTO "measurements" VALUES(1,1,1,3,1.05,2,4);
INSERT INTO "measurements" VALUES(1,1,1,4,1.05,2,5);
INSERT INTO "measurements" VALUES(1,1,1,5,1.05,2,6);
INSERT INTO "measurements" VALUES(1,1,1,6,1.05,2,7);
INSERT INTO "measurements" VALUES(1,1,1,7,1.05,2,8);
INSERT INTO "measurements" VALUES(1,1,1,8,1.05,2,9);
INSERT INTO "measurements" VALUES(1,1,1,9,1.05,2,10);
INSERT INTO "measurements" VALUES(1,1,1,10,1.05,2,11);
CREATE TABLE metrics (
	id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	CONSTRAINT pk_metrics PRIMARY KEY (id), 
	CONSTRAINT uq_metrics_name UNIQUE (name)
);
INSERT INTO "metrics" VALUES(1,'loss');
INSERT INTO "metrics" VALUES(2,'acc');
CREATE TABLE readings (
	session_id INTEGER NOT NULL, 
	metric_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	rank INTEGER NOT NULL, 
	value DOUBLE, 
	CONSTRAINT pk_readings PRIMARY KEY (session_id, metric_id, attempt, step, rank)
)
 WITHOUT ROWID

;
INSERT INTO "readings" VALUES(1,1,1,0,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,0,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,1,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,1,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,2,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,2,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,3,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,3,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,4,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,4,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,5,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,5,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,6,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,6,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,7,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,7,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,8,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,8,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,9,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,9,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,10,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,10,1,1.1);
INSERT INTO "readings" VALUES(1,1,1,11,0,1.0);
INSERT INTO "readings" VALUES(1,1,1,11,1,1.1);
INSERT INTO "readings" VALUES(1,2,1,0,0,NULL);
INSERT INTO "readings" VALUES(1,2,1,0,1,NULL);
INSERT INTO "readings" VALUES(1,2,1,1,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,1,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,2,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,2,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,3,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,3,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,4,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,4,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,5,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,5,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,6,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,6,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,7,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,7,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,8,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,8,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,9,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,9,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,10,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,10,1,0.5);
INSERT INTO "readings" VALUES(1,2,1,11,0,0.5);
INSERT INTO "readings" VALUES(1,2,1,11,1,0.5);
CREATE TABLE sealed (
	session_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	count INTEGER NOT NULL, 
	"values" BLOB NOT NULL, 
	CONSTRAINT pk_sealed PRIMARY KEY (session_id, attempt, start)
);
INSERT INTO "sealed" VALUES(1,1,0,1,X'9A9999999999B93F');
INSERT INTO "sealed" VALUES(1,1,1,1,X'E0590FAC7F8FB93F');
INSERT INTO "sealed" VALUES(1,1,2,1,X'F2F4DFD44171B93F');
INSERT INTO "sealed" VALUES(1,1,3,1,X'B9A42FCF0F3FA93F');
INSERT INTO "sealed" VALUES(1,1,4,1,X'9ABB81D438F9A83F');
INSERT INTO "sealed" VALUES(1,1,5,1,X'1CD2AD1F2BA0983F');
INSERT INTO "sealed" VALUES(1,1,6,1,X'F844E53E7334983F');
INSERT INTO "sealed" VALUES(1,1,7,1,X'B49BDB35BBB6873F');
INSERT INTO "sealed" VALUES(1,1,8,1,X'77FB6F71C927873F');
INSERT INTO "sealed" VALUES(1,1,9,1,X'6F2C7F8E7F88763F');
INSERT INTO "sealed" VALUES(1,1,10,1,X'527ECCF5D8D9753F');
INSERT INTO "sealed" VALUES(1,1,11,1,X'C792334FE91C653F');
INSERT INTO "sealed" VALUES(1,2,8,1,X'77FB6F71C927873F');
INSERT INTO "sealed" VALUES(1,2,9,1,X'6F2C7F8E7F88863F');
INSERT INTO "sealed" VALUES(1,2,10,1,X'527ECCF5D8D9853F');
INSERT INTO "sealed" VALUES(1,2,11,1,X'C792334FE91C853F');
INSERT INTO "sealed" VALUES(1,2,12,1,X'595795CEDA52843F');
INSERT INTO "sealed" VALUES(1,2,13,1,X'72DF2E5DEC7C833F');
INSERT INTO "sealed" VALUES(1,2,14,1,X'33F940A26F9C723F');
INSERT INTO "sealed" VALUES(1,2,15,1,X'AEEE22EEC6B2713F');
INSERT INTO "sealed" VALUES(2,1,0,30,X'00000000000000009A9999999999B93F9A9999999999C93F333333333333D33F9A9999999999D93F000000000000E03F333333333333E33F666666666666E63F9A9999999999E93FCDCCCCCCCCCCEC3F000000000000F03F666666666666EE3FCDCCCCCCCCCCEC3F333333333333EB3F9A9999999999E93F000000000000E83F9A9999999999E93F333333333333EB3FCDCCCCCCCCCCEC3F666666666666EE3F000000000000F03FCDCCCCCCCCCCEC3F9A9999999999E93F666666666666E63F333333333333E33F000000000000E03F9A9999999999D93F333333333333D33F9A9999999999C93F9A9999999999B93F');
INSERT INTO "sealed" VALUES(3,1,10,1,X'527ECCF5D8D9853F');
CREATE TABLE sessions (
	id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	spec TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	attempt INTEGER NOT NULL, 
	horizon BIGINT NOT NULL, 
	revision BIGINT NOT NULL, 
	events BIGINT NOT NULL, 
	"plan" TEXT NOT NULL, 
	control TEXT NOT NULL, 
	created_at VARCHAR(32) NOT NULL, lineage TEXT DEFAULT '[]' NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (id), 
	CONSTRAINT uq_sessions_name UNIQUE (name)
);
INSERT INTO "sessions" VALUES(1,'plateau','{"name":"plateau","schedule":{"kind":"cosine","total_steps":40,"min_lr":0.0,"exponent":1.0,"waves":0.5,"shape":"full"},"base_lr":0.1,"groups":null,"controllers":[{"metric":"loss","from_step":0,"until_step":null,"kind":"plateau","mode":"min","factor":0.5,"divisor":null,"patience":1,"when":"exceeded","threshold":0.0001,"threshold_mode":"rel","threshold_abs":0.0,"finite_only":true,"cooldown":0,"cooldown_ignores":"bad","min_lr":0.0,"min_ratio":0.0,"eps":1e-08,"at_floor":"stay","notify":false,"up_factor":null,"up_patience":10,"max_ratio":1.0}],"metrics":{},"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"reaction":null,"ranks":2,"max_lookahead":null,"total_steps":null,"steps_per_epoch":null,"batch_size":null,"tokens_per_step":null,"start_step":0,"batch_scaling":"none","labels":{"team":"vision"},"origin":null,"forked_from":null}','active',2,16,8,9,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[14,0,14.0,0.1,0.0125,"scaled by 0.5: a spike",0.5,1.0,null,null]]}}','{"states":[{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false}],"consumed":{"loss":7},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[{"id":2,"at":30,"action":{"reason":"","groups":null,"kind":"hold"},"actor":"somebody","key":""}],"ordered":2,"ordered_before":2,"keys":{},"attempt_start":8,"attempt_key":"restart","attempt_batch":null,"batch_size":null,"finished":false}','2026-11-28T19:10:47.998+00:00','[[1,1,0],[1,2,8]]');
INSERT INTO "sessions" VALUES(2,'knots','{"name":"knots","schedule":{"schedule":{"kind":"knots","points":[{"at":0,"level":0.0},{"at":10,"level":1.0},{"at":20,"level":0.5}],"ease":{"kind":"linear"},"outside":"extrapolate"},"kind":"within","steps":15.0,"outside":"bounce"},"base_lr":1.0,"groups":null,"controllers":[],"metrics":{},"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"reaction":null,"ranks":1,"max_lookahead":null,"total_steps":null,"steps_per_epoch":null,"batch_size":null,"tokens_per_step":null,"start_step":0,"batch_scaling":"none","labels":{},"origin":null,"forked_from":null}','active',1,30,0,0,'{"schedules":[{"schedule":{"kind":"knots","points":[{"at":0,"level":0.0},{"at":10,"level":1.0},{"at":20,"level":0.5}],"ease":{"kind":"linear"},"outside":"extrapolate"},"kind":"within","steps":15.0,"outside":"bounce"}],"series":{"lr":[[0,0,0.0,1.0,1.0,"created",1.0,1.0,null,null]]}}','{"states":[],"consumed":{},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":0,"ordered_before":0,"keys":{},"attempt_start":0,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false}','2026-11-28T19:10:48.558+00:00','[[2,1,0]]');
INSERT INTO "sessions" VALUES(3,'branch','{"name":"branch","schedule":{"kind":"cosine","total_steps":40,"min_lr":0.0,"exponent":1.0,"waves":0.5,"shape":"full"},"base_lr":0.1,"groups":null,"controllers":[{"metric":"loss","from_step":0,"until_step":null,"kind":"plateau","mode":"min","factor":0.5,"divisor":null,"patience":1,"when":"exceeded","threshold":0.0001,"threshold_mode":"rel","threshold_abs":0.0,"finite_only":true,"cooldown":0,"cooldown_ignores":"bad","min_lr":0.0,"min_ratio":0.0,"eps":1e-08,"at_floor":"stay","notify":false,"up_factor":null,"up_patience":10,"max_ratio":1.0}],"metrics":{},"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"reaction":null,"ranks":2,"max_lookahead":null,"total_steps":null,"steps_per_epoch":null,"batch_size":null,"tokens_per_step":null,"start_step":0,"batch_scaling":"none","labels":{"team":"vision"},"origin":null,"forked_from":{"session":"plateau","step":10}}','active',1,11,0,1,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[7,0,7.0,0.1,0.0125,"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)",1.0,1.0,null,null]]}}','{"states":[{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false}],"consumed":{"loss":7},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":2,"ordered_before":2,"keys":{},"attempt_start":10,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false}','2026-11-28T19:10:48.604+00:00','[[1,1,0],[1,2,8],[3,1,10]]');
CREATE TABLE snapshots (
	session_id INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	horizon BIGINT NOT NULL, 
	"plan" TEXT NOT NULL, 
	control TEXT NOT NULL, 
	CONSTRAINT pk_snapshots PRIMARY KEY (session_id, attempt, horizon)
);
INSERT INTO "snapshots" VALUES(1,1,0,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[0,0,0.0,0.1,0.1,"created",1.0,1.0,null,null]]}}','{"states":[{"best":Infinity,"bad":0,"cooldown":0,"good":0,"told":false}],"consumed":{},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":0,"ordered_before":0,"keys":{},"attempt_start":0,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false,"pending":[]}');
INSERT INTO "snapshots" VALUES(1,1,2,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[0,0,0.0,0.1,0.1,"created",1.0,1.0,null,null]]}}','{"states":[{"best":1.05,"bad":0,"cooldown":0,"good":1,"told":false}],"consumed":{"loss":0},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":0,"ordered_before":0,"keys":{},"attempt_start":0,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false,"pending":[]}');
INSERT INTO "snapshots" VALUES(1,2,8,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[7,0,7.0,0.1,0.0125,"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)",1.0,1.0,null,null]]}}','{"states":[{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false}],"consumed":{"loss":7},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[{"id":1,"at":14,"action":{"reason":"a spike","groups":null,"kind":"scale","factor":0.5},"actor":"somebody","key":""},{"id":2,"at":30,"action":{"reason":"","groups":null,"kind":"hold"},"actor":"somebody","key":""}],"ordered":2,"ordered_before":2,"keys":{},"attempt_start":8,"attempt_key":"restart","attempt_batch":null,"batch_size":null,"finished":false,"pending":[]}');
INSERT INTO "snapshots" VALUES(2,1,0,'{"schedules":[{"schedule":{"kind":"knots","points":[{"at":0,"level":0.0},{"at":10,"level":1.0},{"at":20,"level":0.5}],"ease":{"kind":"linear"},"outside":"extrapolate"},"kind":"within","steps":15.0,"outside":"bounce"}],"series":{"lr":[[0,0,0.0,1.0,1.0,"created",1.0,1.0,null,null]]}}','{"states":[],"consumed":{},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":0,"ordered_before":0,"keys":{},"attempt_start":0,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false,"pending":[]}');
INSERT INTO "snapshots" VALUES(3,1,10,'{"schedules":[{"kind":"ramp","start":"base","end":0.0,"steps":40.0,"ease":{"kind":"cosine","waves":0.5,"exponent":1.0},"outside":"hold"}],"series":{"lr":[[7,0,7.0,0.1,0.0125,"loss has not improved on 1.05 in 2 measurements (now 1.05; patience 1)",1.0,1.0,null,null]]}}','{"states":[{"best":1.05,"bad":1,"cooldown":0,"good":0,"told":false}],"consumed":{"loss":7},"smoothers":{},"notices":[],"passed":-1,"limits":{"min_lr":0.0,"max_lr":null,"max_change":null},"orders":[],"ordered":2,"ordered_before":2,"keys":{},"attempt_start":10,"attempt_key":"","attempt_batch":null,"batch_size":null,"finished":false,"pending":[]}');
CREATE TABLE templates (
	name VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	deprecated TEXT, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_templates PRIMARY KEY (name, version)
);
INSERT INTO "templates" VALUES('house',1,'{"name":"house","description":"","parameters":{},"spec":{"base_lr":0.1,"schedule":{"kind":"ramp","start":0.0,"end":"base","steps":10,"outside":"extrapolate"}}}',NULL,'2026-11-28T19:10:48.636+00:00');
CREATE TABLE tokens (
	id VARCHAR(16) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	expires_at VARCHAR(32), 
	CONSTRAINT pk_tokens PRIMARY KEY (id)
);
CREATE INDEX ix_labels_name_value ON labels (name, value);
CREATE INDEX ix_events_session_id_attempt_at ON events (session_id, attempt, at);
CREATE INDEX ix_attempts_session_id_key ON attempts (session_id, "key");
COMMIT;
