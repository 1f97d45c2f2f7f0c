// Made from the server's OpenAPI document by scripts/types.mjs; not to be edited.

export interface paths {
    "/v1/about": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The server's version, and whether it was set up. */
        get: operations["getAbout"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/backups": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Take a backup of the server's record and keys now. */
        post: operations["postBackups"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/balance": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Plan moves that even out load, and carry them out unless it is a dry run. */
        post: operations["postBalance"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/disks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Make a disk. */
        post: operations["postDisks"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/disks/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Delete a disk that no VM has. */
        delete: operations["deleteDisksOne"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/disks/{id}/grow": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Grow a disk. */
        post: operations["postDisksGrow"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The event log after a number, oldest first. */
        get: operations["getEvents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Register a machine before it is seen. */
        post: operations["postHosts"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Remove a host. */
        delete: operations["deleteHostsOne"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/accept": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Let a waiting machine in. */
        post: operations["postHostsAccept"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/bmc": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Say how a host's power is switched. */
        post: operations["postHostsBmc"];
        /** Forget how a host's power is switched. */
        delete: operations["deleteHostsBmc"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/confirm-off": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Say of a host whose fence waits for its power that it has none. */
        post: operations["postHostsConfirm-off"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/describe": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Give a host another name or other labels. */
        post: operations["postHostsDescribe"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/drain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Empty a host, and give it nothing new. */
        post: operations["postHostsDrain"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/log": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The end of what dom0's kernel and daemons said. */
        get: operations["getHostsLog"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/pool": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Put a host into another pool. */
        post: operations["postHostsPool"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/power": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A host's power, as its management controller says now. */
        get: operations["getHostsPower"];
        put?: never;
        /** Switch a host's power. */
        post: operations["postHostsPower"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/{id}/undrain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Use a host again. */
        post: operations["postHostsUndrain"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/hosts/list": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Name machines that are let in when they come. */
        post: operations["postHostsList"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/login": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Log in. */
        post: operations["postLogin"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/logout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** End this session. */
        post: operations["postLogout"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** This document. */
        get: operations["getOpenapi"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/pools": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Make a pool of hosts. */
        post: operations["postPools"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/pools/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Delete a pool without hosts. */
        delete: operations["deletePoolsOne"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/pools/{id}/rollout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Bring a release to a pool: first to a few hosts, then to all. */
        post: operations["postPoolsRollout"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/pools/{id}/stop": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Stop a pool's rollout: canaries go back, what was promoted stays. */
        post: operations["postPoolsStop"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/rack": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The rack at this moment. */
        get: operations["getRack"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/releases": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Add an announced release, all of whose files were sent. */
        post: operations["postReleases"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/releases/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Delete a release that nothing uses. */
        delete: operations["deleteReleasesOne"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/releases/collect": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Delete the releases that nothing uses. */
        post: operations["postReleasesCollect"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/releases/files/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Send a part of an announced file, named by its sha256: up to 1 MiB, in order. */
        post: operations["postReleasesFilesOne"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/releases/missing": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Announce a release: which of its files are to be sent. */
        post: operations["postReleasesMissing"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/setup": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Choose the password by the set-up code. */
        post: operations["postSetup"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The rack, as server-sent events named `rack`, at once and on every change. */
        get: operations["getStream"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/thaw": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Say of a frozen rack that the hosts which vanished are dead: each is fenced. */
        post: operations["postThaw"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Make a VM from a template. */
        post: operations["postVms"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Delete a stopped VM and its disks. */
        delete: operations["deleteVmsOne"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/console": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The end of a guest's console log. */
        get: operations["getVmsConsole"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/destroy": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Stop a VM at once, as by its power switch. */
        post: operations["postVmsDestroy"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/ha": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Say in which order a VM is started again after its host has failed. */
        post: operations["postVmsHa"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/migrate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Move a running VM to another host. */
        post: operations["postVmsMigrate"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/pause": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Pause a VM. */
        post: operations["postVmsPause"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Let a paused VM go on. */
        post: operations["postVmsResume"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/shutdown": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Ask a VM to shut down. */
        post: operations["postVmsShutdown"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Start a VM. */
        post: operations["postVmsStart"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description Whether the server was set up; readable without a session. */
        About: {
            /** @description Whether the first password has yet to be chosen. */
            needs_setup: boolean;
            /** @description The server's version. */
            version: string;
        };
        /** @description What was done or begun. */
        Accepted: {
            /** @enum {string} */
            did: "done";
        } | {
            /** @enum {string} */
            did: "begun";
        } | {
            /** @enum {string} */
            did: "moving";
            /** @description The move. */
            move: components["schemas"]["MoveId"];
        };
        /** @description An error's body. */
        ApiError: {
            /** @description For a person; the refusal's own sentence. */
            message: string;
            /** @description For a program. */
            refusal: components["schemas"]["Refusal"];
        };
        /** @description One backup. */
        BackupFile: {
            /**
             * Format: int64
             * @description Its length.
             */
            bytes: number;
            /** @description Its file's name. */
            name: string;
            /**
             * Format: int64
             * @description When it was taken, Unix milliseconds.
             */
            taken_ms: number;
        };
        /** @description Backups of the server's record and keys. */
        BackupView: {
            /** @description Where on the server they are. */
            directory: string;
            /**
             * Format: int64
             * @description Seconds from one to the next; 0 when they are taken on command only.
             */
            every_s: number;
            /** @description Why the last one was not taken. */
            failure?: string | null;
            /** @description Those there are, newest first. */
            files: components["schemas"]["BackupFile"][];
            /**
             * Format: int32
             * @description How many are kept.
             */
            keep: number;
            /** @description The newest is older than twice the time from one to the next. */
            late: boolean;
        };
        /** @description Asks for a plan. */
        Balance: {
            /** @description Only say what would be done. */
            dry_run?: boolean;
        };
        /** @description A management controller. */
        Bmc: {
            /** @description Its address, where SMBIOS has it: that of Redfish over the host's own interface (DSP0270). */
            address?: string | null;
            /** @description How the machine itself speaks to it: `KCS`, `SMIC`, `BT`, `SSIF` (IPMI, SMBIOS type 38) or `Redfish` (type 42). */
            by: string;
        };
        /**
         * @description By which protocol a machine's power is switched.
         * @enum {string}
         */
        BmcKind: "wake" | "ipmi" | "redfish";
        /** @description What a PVH guest boots. */
        Boot: {
            /** @description Kernel command line. */
            cmdline: string;
            /** @description sha256 of the initrd. */
            initrd?: string | null;
            /** @description sha256 of the kernel, 64 hexadecimal digits. */
            kernel: string;
            /** @enum {string} */
            kind: "kernel";
        } | {
            /** @enum {string} */
            kind: "disk";
            /** @description sha256 of the loader. */
            loader: string;
        };
        /** @description One step of a boot. */
        BootStep: {
            /**
             * Format: int32
             * @description How many times it was begun again, as when a file is asked for anew.
             */
            again?: number;
            /**
             * Format: int64
             * @description When it began, Unix milliseconds.
             */
            at_ms: number;
            /**
             * Format: int64
             * @description Bytes sent so far.
             */
            bytes: number;
            /**
             * Format: int64
             * @description Bytes there are to send; 0 when that means nothing.
             */
            bytes_total: number;
            /** @description Which step. */
            step: components["schemas"]["BootStepKind"];
            /**
             * Format: int64
             * @description How long it took, milliseconds; absent while it is under way.
             */
            took_ms?: number | null;
        };
        /**
         * @description Steps of a boot in their order.
         * @enum {string}
         */
        BootStepKind: "dhcp" | "loader" | "script" | "xen" | "kernel" | "initrd" | "linux" | "image" | "start" | "join";
        /** @description Releases that were removed, or would be. */
        Collected: {
            /** @description Which. */
            releases: components["schemas"]["ReleaseId"][];
        };
        /** @description Removes releases that nothing uses. */
        CollectReleases: {
            /** @description Only say which. */
            dry_run?: boolean;
            /**
             * Format: int64
             * @description Only those that nothing has used for so many seconds.
             */
            unused_s?: number;
        };
        /** @description A guest's console, or a host's log. */
        ConsoleText: {
            /** @description The end of its log. */
            text: string;
        };
        /** @description A machine's processors. */
        Cpu: {
            /** @description Features by the names of /proc/cpuinfo, or of Xen's featureset where the agent knows it. */
            features: string[];
            /** @description The name it gives itself. */
            model: string;
            /**
             * Format: int32
             * @description Threads that Xen schedules on.
             */
            threads: number;
            /** @description `AuthenticAMD`, `GenuineIntel`. */
            vendor: string;
        };
        /** @description Makes a disk. */
        CreateDisk: {
            /** @description Disk or template image to copy from. */
            from?: string | null;
            /** @description Its name. */
            name: components["schemas"]["DiskId"];
            /**
             * Format: int64
             * @description Size, MiB.
             */
            size_mib: number;
        };
        /** @description Makes a pool. */
        CreatePool: {
            /** @description Its name. */
            name: components["schemas"]["PoolId"];
            /** @description What its hosts boot. */
            release: components["schemas"]["ReleaseId"];
        };
        /** @description Makes a VM from a template. */
        CreateVm: {
            /** @description Appended to the template's kernel command line. */
            cmdline?: string;
            /**
             * Format: int64
             * @description Size of its disk, MiB; the template's when absent. Never less than the template's image.
             */
            disk_mib?: number | null;
            mac?: components["schemas"]["Mac"] | null;
            /**
             * Format: int64
             * @description Memory, MiB; the template's when absent.
             */
            memory_mib?: number | null;
            /** @description Its name. */
            name: components["schemas"]["VmId"];
            /** @description In which order it is started again after its host has failed. */
            restart?: components["schemas"]["Restart"];
            /** @description Whether to start it at once. */
            start?: boolean;
            /** @description Which template. */
            template: string;
            /**
             * Format: int32
             * @description Virtual processors; the template's when absent.
             */
            vcpus?: number | null;
        };
        /** @description Gives a host another name or other labels. */
        DescribeHost: {
            /** @description All its labels; as they are when absent. */
            labels?: {
                [key: string]: string;
            } | null;
            /** @description Its name; as it is when absent. */
            name?: string | null;
        };
        /** @description A disk on the shared storage; also the last part of its iSCSI target name. */
        DiskId: string;
        /** @description One disk. */
        DiskView: {
            /** @description Hosts that may reach it now. */
            granted: components["schemas"]["HostId"][];
            /** @description Its name. */
            name: components["schemas"]["DiskId"];
            /** @description Why it could not be made, if it could not. */
            note?: string;
            /** @description Whether it is ready to use. */
            ready: boolean;
            /**
             * Format: int64
             * @description MiB.
             */
            size_mib: number;
            vm?: components["schemas"]["VmId"] | null;
        };
        /** @description An OpenAPI document, as far as its schema is told. */
        Document: Record<string, never>;
        /**
         * @description A domain's state.
         * @enum {string}
         */
        DomainState: "running" | "paused" | "suspended" | "shutdown" | "crashed" | "dying";
        /**
         * Format: int64
         * @description How often a VM's owner has changed. Whoever acts on a VM under an older epoch is wrong.
         */
        Epoch: number;
        /**
         * @description How far a host without a sign of life is fenced.
         * @enum {string}
         */
        FenceStep: "waiting" | "power" | "cutting" | "done";
        /** @description How far a file is that is being sent. */
        FileProgress: {
            /**
             * Format: int64
             * @description Bytes that are here.
             */
            have: number;
            /** @description It is whole, and its digest is right. */
            whole: boolean;
        };
        /**
         * @description How the machine was started.
         * @enum {string}
         */
        Firmware: "bios" | "uefi";
        /** @description Grows a disk. */
        GrowDisk: {
            /**
             * Format: int64
             * @description The new size, MiB; larger than now.
             */
            size_mib: number;
        };
        /** @description What a machine is made of beyond what dom0 uses: for people, and for rules on whom to let in. */
        Hardware: {
            /** @default null */
            bmc: components["schemas"]["Bmc"] | null;
            /**
             * @description Local disks that the kernel shows. Only looked at: nothing of them is mounted or written.
             * @default []
             */
            disks: components["schemas"]["LocalDisk"][];
            /**
             * @description Maker, version and date of the firmware, from SMBIOS.
             * @default
             */
            firmware: string;
            /**
             * @description Memory modules, by SMBIOS (type 17); empty places are left out.
             * @default []
             */
            modules: components["schemas"]["MemoryModule"][];
        };
        /** @description High availability, of the rack as a whole. */
        HaView: {
            /** @description Why no host that fails is noticed: the heartbeat disk cannot be read. */
            blind?: string | null;
            /**
             * Format: int32
             * @description How many hosts, whichever they are, may fail and all VMs still fit on the others.
             */
            failures_borne: number;
            /** @description Why nothing is fenced or started by itself: too many hosts vanished together. Ended by their return or by an operator. */
            frozen?: string | null;
            /**
             * Format: int64
             * @description The largest VM, MiB, that can be started so that one host may still fail; 0 when none may.
             */
            room_mib?: number;
            /**
             * @description Why nothing is ordered of any host: the record is that of a backup and hosts are asked what they run, or another server has taken this
             *     one's place.
             */
            standing_by?: string | null;
            /** @description Whether it is that another server has taken this one's place, of which `standing_by` then tells. */
            superseded?: boolean;
        };
        /** @description A physical machine. Made from its first MAC address: `h525400aabb01`. */
        HostId: string;
        /** @description Machines to be let in when they come. */
        HostList: {
            /** @description Forget those that earlier lists named by UUID or serial number and that have not come. */
            replace?: boolean;
            /**
             * @description CSV with a line of headings, or YAML: a list of mappings. Headings and keys: mac, uuid, serial, name, labels; of the first three one or
             *     more. Labels are `key=value`, in CSV several with a space between, in YAML a mapping. Of the management controller: in CSV bmc (its kind),
             *     bmc_address, bmc_user, bmc_password, bmc_trust, bmc_system; in YAML a mapping `bmc` as `SetBmc`.
             */
            text: string;
        };
        /**
         * @description Where a machine stands.
         * @enum {string}
         */
        HostState: "registered" | "booting" | "waiting" | "active" | "draining" | "lost" | "refused";
        /** @description A host's load, since the report before. */
        HostStats: {
            /**
             * Format: double
             * @description The agent's processor time, cores.
             */
            agent_cpu_cores: number;
            /**
             * Format: int64
             * @description The agent's resident memory, KiB.
             */
            agent_rss_kib: number;
            /**
             * Format: double
             * @description Processor time of all domains, cores (0 to threads).
             */
            cpu_cores: number;
            /**
             * Format: int64
             * @description dom0's own used memory, MiB.
             */
            dom0_used_mib: number;
            /**
             * Format: int64
             * @description Memory not given to any domain, MiB.
             */
            memory_free_mib: number;
            /**
             * Format: double
             * @description Bytes a second received on hardware interfaces.
             */
            net_rx_bytes_s: number;
            /**
             * Format: double
             * @description Bytes a second sent on hardware interfaces.
             */
            net_tx_bytes_s: number;
        };
        /** @description One machine. */
        HostView: {
            /** @description Its lease. */
            address?: string | null;
            /** @description The newest boot, step by step. */
            boot: components["schemas"]["BootStep"][];
            fence?: components["schemas"]["FenceStep"] | null;
            /**
             * Format: int64
             * @description When the wait of its fence is over if nothing is heard of it, Unix milliseconds; absent without a fence, once it is done, and
             *     while the rack is frozen.
             */
            fence_at_ms?: number | null;
            firmware?: components["schemas"]["Firmware"] | null;
            /** @description Its id. */
            id: components["schemas"]["HostId"];
            inventory?: components["schemas"]["Inventory"] | null;
            /** @description Labels. */
            labels: {
                [key: string]: string;
            };
            /** @description The address it boots from. */
            mac: components["schemas"]["Mac"];
            /** @description The operator's name for it; the id until given one. */
            name: string;
            /** @description A sentence on what is wrong or awaited; empty when all is well. */
            note: string;
            /** @description That is another than it would boot now. */
            outdated?: boolean;
            /** @description The pool that it is in. */
            pool?: components["schemas"]["PoolId"];
            power?: components["schemas"]["PowerView"] | null;
            release?: components["schemas"]["ReleaseId"] | null;
            /**
             * Format: int64
             * @description Since when, Unix milliseconds.
             */
            since_ms: number;
            /** @description Its boot stands still; the note says why, likely. */
            stalled?: boolean;
            /** @description Where it stands. */
            state: components["schemas"]["HostState"];
            stats?: components["schemas"]["HostStats"] | null;
            /** @description VMs whose owner it is. */
            vms: components["schemas"]["VmId"][];
        };
        /** @description What an agent found its machine to be. Sent once, with the join. */
        Inventory: {
            /** @description The agent's own version. */
            agent: string;
            /** @description Processor. */
            cpu: components["schemas"]["Cpu"];
            /**
             * Format: int64
             * @description Memory given to dom0, MiB.
             */
            dom0_mib: number;
            /** @description `BIOS` or `UEFI`. */
            firmware: components["schemas"]["Firmware"];
            /** @description What of it dom0 does not use. */
            hardware?: components["schemas"]["Hardware"];
            /** @description Digest of the image that is running, as its manifest says. */
            image: string;
            /**
             * Format: int64
             * @description All memory that Xen has, dom0's with it, MiB.
             */
            memory_mib: number;
            /** @description Network interfaces of the hardware. */
            nics: components["schemas"]["Nic"][];
            /** @description Maker and product from SMBIOS. */
            product: string;
            /** @description The release that it was booted into, as this boot's words have it; empty with an agent that does not know releases. */
            release?: string;
            /** @description SMBIOS serial number; empty when the firmware gives none. */
            serial: string;
            /** @description SMBIOS system UUID in RFC 4122 order and lower case; empty when the firmware gives none. */
            uuid: string;
            /** @description Xen's version, such as `4.17.7`. */
            xen: string;
        };
        /**
         * @description How much an event matters.
         * @enum {string}
         */
        Level: "info" | "warning" | "error";
        /** @description A disk of the machine itself. */
        LocalDisk: {
            /** @description Its model. */
            model: string;
            /** @description The kernel's name, such as `sda`. */
            name: string;
            /** @description The kernel found a partition table on it. */
            partitioned: boolean;
            /** @description Its serial number. */
            serial: string;
            /**
             * Format: int64
             * @description MiB.
             */
            size_mib: number;
        };
        /** @description One line of the log. */
        LogEvent: {
            /**
             * Format: int64
             * @description Unix milliseconds.
             */
            at_ms: number;
            epoch?: components["schemas"]["Epoch"] | null;
            host?: components["schemas"]["HostId"] | null;
            /** @description How much it matters. */
            level: components["schemas"]["Level"];
            move?: components["schemas"]["MoveId"] | null;
            /**
             * Format: int64
             * @description Rises by one with every event, over restarts.
             */
            seq: number;
            /** @description One sentence for a person. */
            text: string;
            /** @description What it is about. */
            topic: components["schemas"]["Topic"];
            vm?: components["schemas"]["VmId"] | null;
        };
        /** @description Log in. */
        Login: {
            /** @description The operator's password. */
            password: string;
        };
        /**
         * @description An Ethernet address.
         * @example 52:54:00:aa:bb:01
         */
        Mac: string;
        /** @description What is in a release. Nothing of it ever changes: other files, or another name, are another release. */
        Manifest: {
            /**
             * Format: int64
             * @description When it was built, Unix milliseconds.
             */
            built_ms?: number | null;
            /** @description Its files by their role, such as `xen`, `vmlinuz`, `dom0.squashfs`; 1 to 32. */
            files: {
                [key: string]: components["schemas"]["ReleaseFile"];
            };
            /** @description Debian's version of the kernel that it was built from; empty when unknown. */
            kernel?: string;
            /** @description What boots it. */
            kind: components["schemas"]["ReleaseKind"];
            /** @description Its name, 1 to 63 of letters, digits, '.', '_', '+' and '-'. */
            name: string;
            /**
             * Format: int64
             * @description Its version; of two of one name the newer has the higher.
             */
            version: number;
            /** @description Debian's version of Xen that it was built from; empty when unknown. */
            xen?: string;
        };
        /** @description A memory module. */
        MemoryModule: {
            /** @description Its maker. */
            maker: string;
            /** @description Its part number. */
            part: string;
            /** @description Its serial number. */
            serial: string;
            /**
             * Format: int64
             * @description MiB.
             */
            size_mib: number;
            /** @description Where it is, as the board's maker names the place. */
            slot: string;
            /**
             * Format: int32
             * @description Megatransfers a second at most; 0 when SMBIOS does not say.
             */
            speed_mts: number;
        };
        /** @description Asks for a move. */
        MigrateVm: {
            to?: components["schemas"]["HostId"] | null;
        };
        /** @description A file that is to be sent. */
        MissingFile: {
            /**
             * Format: int64
             * @description Bytes of the whole.
             */
            bytes: number;
            /**
             * Format: int64
             * @description Bytes that are here already.
             */
            have: number;
            /** @description Its role. */
            role: string;
            /** @description Its digest. */
            sha256: string;
        };
        /** @description What the server lacks of a release that is to be imported. */
        MissingFiles: {
            /** @description Files to send, by their role, each once. */
            files: components["schemas"]["MissingFile"][];
            /** @description The release's id. */
            release: components["schemas"]["ReleaseId"];
        };
        /**
         * Format: int64
         * @description One move of one VM. Rises for ever.
         */
        MoveId: number;
        /**
         * @description Where a move stands.
         *
         *     ```text
         *     Preparing -> Copying -> Committing -> Activating -> Releasing -> Done
         *         |           |
         *         +-----------+--> Aborting -> Aborted        (owner never changed)
         *     ```
         * @enum {string}
         */
        MovePhase: "preparing" | "copying" | "committing" | "activating" | "releasing" | "done" | "aborting" | "aborted";
        /** @description One move. */
        MoveView: {
            /**
             * Format: int64
             * @description When it began, Unix milliseconds.
             */
            began_ms: number;
            /**
             * Format: int64
             * @description Bytes sent so far.
             */
            bytes: number;
            /**
             * Format: int64
             * @description Milliseconds that the guest stood still, as the agents measured it.
             */
            downtime_ms?: number | null;
            /**
             * Format: int64
             * @description When it ended.
             */
            ended_ms?: number | null;
            /** @description Why it failed. */
            failure?: string | null;
            /** @description Its number. */
            id: components["schemas"]["MoveId"];
            /** @description Where it stands. */
            phase: components["schemas"]["MovePhase"];
            /** @description Why, one sentence. */
            reason: string;
            /** @description From here. */
            source: components["schemas"]["HostId"];
            stage?: components["schemas"]["Stage"] | null;
            /** @description To there. */
            target: components["schemas"]["HostId"];
            /**
             * Format: int64
             * @description Milliseconds from the first byte to the guest running at the target.
             */
            total_ms?: number | null;
            /** @description The VM. */
            vm: components["schemas"]["VmId"];
        };
        /** @description A network interface. */
        Nic: {
            /** @description Kernel driver. */
            driver: string;
            /** @description Whether there is a carrier. */
            link: boolean;
            /** @description Its address. */
            mac: components["schemas"]["Mac"];
            /**
             * Format: int32
             * @description Megabits a second; absent when the driver does not say.
             */
            speed_mbit?: number | null;
        };
        /**
         * @description What becomes of a guest that crashes.
         * @enum {string}
         */
        OnCrash: "restart" | "stop";
        /** @description An operator's order. */
        OrderPower: {
            /** @description Boot from the network this once, whatever the machine's boot order is; with on and cycle. */
            network?: boolean;
            /** @description What. */
            verb: components["schemas"]["PowerVerb"];
        };
        /** @description A move that the planner proposes. */
        PlannedMove: {
            /** @description Why, one sentence. */
            reason: string;
            /** @description From here. */
            source: components["schemas"]["HostId"];
            /** @description To there. */
            target: components["schemas"]["HostId"];
            /** @description The VM. */
            vm: components["schemas"]["VmId"];
        };
        /** @description A plan of moves, for `balance --dry-run` and the page. */
        PlanView: {
            /** @description In order. */
            moves: components["schemas"]["PlannedMove"][];
            /**
             * Format: double
             * @description Imbalance after.
             */
            score_after: number;
            /**
             * Format: double
             * @description Imbalance before, 0 is even.
             */
            score_before: number;
            /** @description VMs that a rule or overload concerns and that stay, with the reason. */
            stays: components["schemas"]["Stay"][];
        };
        /** @description A pool of hosts: 1 to 63 of a-z, 0-9 and '-'. */
        PoolId: string;
        /** @description One pool. */
        PoolView: {
            /**
             * Format: int32
             * @description Hosts in it.
             */
            hosts: number;
            /** @description Its name. */
            name: components["schemas"]["PoolId"];
            /**
             * Format: int32
             * @description Of those, how many run another release.
             */
            outdated: number;
            previous?: components["schemas"]["ReleaseId"] | null;
            /** @description What its hosts boot. */
            release: components["schemas"]["ReleaseId"];
            rollout?: components["schemas"]["RolloutView"] | null;
        };
        /** @description An order to switch a machine's power. */
        PowerOrderView: {
            /**
             * Format: int64
             * @description When it was given, Unix milliseconds.
             */
            asked_ms: number;
            /** @description What went wrong last; empty when nothing did. */
            cause: string;
            /**
             * Format: int64
             * @description When it ended.
             */
            ended_ms?: number | null;
            /** @description From the network, this once. */
            network: boolean;
            /** @description How far it is. */
            stage: components["schemas"]["PowerStage"];
            /**
             * Format: int32
             * @description How often it was tried.
             */
            tries: number;
            /** @description What. */
            verb: components["schemas"]["PowerVerb"];
        };
        /**
         * @description How far an order is.
         *
         *     ```text
         *     Asked -> Doing -> Done
         *       ^        |  \-> Failed
         *       +--------+ tried again
         *     ```
         * @enum {string}
         */
        PowerStage: "asked" | "doing" | "done" | "failed";
        /**
         * @description Whether a machine has power, as its management controller says.
         * @enum {string}
         */
        PowerState: "on" | "off" | "unknown";
        /**
         * @description What is asked of a machine's power.
         * @enum {string}
         */
        PowerVerb: "on" | "off" | "cycle";
        /** @description A machine's power as an operator sees it. */
        PowerView: {
            /** @description Where. */
            address: string;
            /**
             * Format: int64
             * @description When it said so, Unix milliseconds; absent when it never did since the server started.
             */
            at_ms?: number | null;
            /**
             * Format: int64
             * @description Since when it cannot be asked, Unix milliseconds; absent while it answers.
             */
            failing_since_ms?: number | null;
            /** @description Why it cannot be asked: what was tried, what went wrong and what to do; empty while it answers. */
            failure: string;
            /** @description Protocol. */
            kind: components["schemas"]["BmcKind"];
            order?: components["schemas"]["PowerOrderView"] | null;
            /** @description What it said last. */
            state: components["schemas"]["PowerState"];
            /** @description Redfish: which system; empty for the only one. */
            system: string;
            /** @description Redfish: `first`, `any`, or the sha256 of the certificate that is trusted; otherwise empty. */
            trust: string;
            /** @description Account. */
            user: string;
        };
        /**
         * @description Who goes first where there is not room for all.
         * @enum {string}
         */
        Priority: "high" | "normal" | "low" | "never";
        /** @description The rack at one moment. */
        RackView: {
            /**
             * Format: int64
             * @description Unix milliseconds.
             */
            at_ms: number;
            /** @description Backups of the server's record. */
            backups?: components["schemas"]["BackupView"];
            /** @description By name. */
            disks: components["schemas"]["DiskView"][];
            /** @description The newest 100, newest first. */
            events: components["schemas"]["LogEvent"][];
            /**
             * Format: int32
             * @description Machines that a list named by UUID or serial number and that have not come yet.
             */
            expected?: number;
            /** @description What becomes of VMs when hosts fail. */
            ha?: components["schemas"]["HaView"];
            /** @description By id. */
            hosts: components["schemas"]["HostView"][];
            /** @description Those under way and the newest 50 that ended, newest first. */
            moves: components["schemas"]["MoveView"][];
            /** @description Pools, by name. */
            pools?: components["schemas"]["PoolView"][];
            /** @description Releases, by kind and name, the newest of a name first. */
            releases?: components["schemas"]["ReleaseView"][];
            /** @description Names of templates that a VM can be made from. */
            templates: string[];
            /**
             * Format: int64
             * @description Rises with every change within one run of the server.
             */
            version: number;
            /** @description By name. */
            vms: components["schemas"]["VmView"][];
        };
        /** @description Why the server does not do what it was asked. */
        Refusal: {
            /** @description As given. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "no_host";
        } | {
            /** @description As given. */
            vm: components["schemas"]["VmId"];
            /** @enum {string} */
            why: "no_vm";
        } | {
            /** @description As given. */
            disk: components["schemas"]["DiskId"];
            /** @enum {string} */
            why: "no_disk";
        } | {
            /** @description Those there are. */
            known: string[];
            /** @description As given. */
            template: string;
            /** @enum {string} */
            why: "no_template";
        } | {
            /** @description The name. */
            name: string;
            /** @enum {string} */
            why: "name_taken";
        } | {
            /** @description The address. */
            mac: components["schemas"]["Mac"];
            /** @enum {string} */
            why: "mac_taken";
        } | {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @description Its state. */
            state: components["schemas"]["HostState"];
            /** @enum {string} */
            why: "host_is";
        } | {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "host_fenced";
        } | {
            /** @description Its phase. */
            phase: components["schemas"]["VmPhase"];
            /** @description Which. */
            vm: components["schemas"]["VmId"];
            /** @enum {string} */
            why: "vm_is";
        } | {
            /** @description The move. */
            move: components["schemas"]["MoveId"];
            /** @enum {string} */
            why: "move_under_way";
        } | {
            /** @description Each host with the reason. */
            rejected: components["schemas"]["Rejected"][];
            /** @description Which. */
            vm: components["schemas"]["VmId"];
            /** @enum {string} */
            why: "no_place";
        } | {
            /** @description Where. */
            host: components["schemas"]["HostId"];
            /** @description Which. */
            vm: components["schemas"]["VmId"];
            /** @enum {string} */
            why: "already_there";
        } | {
            /** @description Which. */
            disk: components["schemas"]["DiskId"];
            /** @description Whose. */
            vm: components["schemas"]["VmId"];
            /** @enum {string} */
            why: "disk_in_use";
        } | {
            /** @description How many. */
            count: number;
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "host_has_vms";
        } | {
            /** @description As given. */
            release: components["schemas"]["ReleaseId"];
            /** @enum {string} */
            why: "no_release";
        } | {
            /** @description As given. */
            pool: components["schemas"]["PoolId"];
            /** @enum {string} */
            why: "no_pool";
        } | {
            /** @description By what, a few words each. */
            by: string[];
            /** @description Which. */
            release: components["schemas"]["ReleaseId"];
            /** @enum {string} */
            why: "release_in_use";
        } | {
            /**
             * Format: int32
             * @description How many.
             */
            hosts: number;
            /** @description Which. */
            pool: components["schemas"]["PoolId"];
            /** @enum {string} */
            why: "pool_in_use";
        } | {
            /** @description The pool whose. */
            pool: components["schemas"]["PoolId"];
            /** @enum {string} */
            why: "rollout_under_way";
        } | {
            /** @description What was expected. */
            expected: string;
            /** @description Which. */
            field: string;
            /** @description What was given. */
            given: string;
            /** @enum {string} */
            why: "bad_value";
        } | {
            /** @enum {string} */
            why: "not_logged_in";
        } | {
            /** @enum {string} */
            why: "wrong_password";
        } | {
            /**
             * Format: int64
             * @description Seconds to wait.
             */
            retry_s: number;
            /** @enum {string} */
            why: "too_many_attempts";
        } | {
            /** @enum {string} */
            why: "already_set_up";
        } | {
            /** @description What is the matter. */
            detail: string;
            /** @enum {string} */
            why: "unavailable";
        } | {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "no_bmc";
        } | {
            /** @description Which host. */
            host: components["schemas"]["HostId"];
            /** @description Its protocol. */
            kind: components["schemas"]["BmcKind"];
            /** @description What it cannot do, as a verb and what belongs to it. */
            what: string;
            /** @enum {string} */
            why: "bmc_cannot";
        } | {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "power_under_way";
        } | {
            /** @enum {string} */
            why: "no_such_path";
        } | {
            /** @description What it said. */
            detail: string;
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @enum {string} */
            why: "host_failed";
        };
        /** @description Registers a machine before it is seen. */
        RegisterHost: {
            /** @description The address it boots from. */
            mac: components["schemas"]["Mac"];
            /** @description A name for it. */
            name?: string | null;
        };
        /** @description A host that cannot take a VM. */
        Rejected: {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @description Why, one sentence. */
            why: string;
        };
        /** @description One file of a release. */
        ReleaseFile: {
            /**
             * Format: int64
             * @description Bytes, up to 1 TiB.
             */
            bytes: number;
            /** @description 64 hexadecimal digits. */
            sha256: string;
        };
        /** @description A release, by the first digits of the sha256 of its name, version, kind and files. */
        ReleaseId: string;
        /**
         * @description What boots a release.
         * @enum {string}
         */
        ReleaseKind: "dom0" | "guest";
        /** @description One release. */
        ReleaseView: {
            /** @description Its id. */
            id: components["schemas"]["ReleaseId"];
            /**
             * Format: int64
             * @description When it was imported, Unix milliseconds.
             */
            imported_ms: number;
            /** @description What is in it. */
            manifest: components["schemas"]["Manifest"];
            /** @description What uses it, a few words each; empty when nothing does. */
            used_by: string[];
        };
        /** @description How a VM is started again after its host has failed, and whether after a crash of its guest. */
        Restart: {
            /**
             * Format: int32
             * @description No sooner than so many seconds after its host was fenced, 0 to 3600.
             * @default 0
             */
            delay_s: number;
            /**
             * @description What becomes of its guest when that crashes.
             * @default restart
             */
            on_crash: components["schemas"]["OnCrash"];
            /**
             * @description Before which others.
             * @default normal
             */
            priority: components["schemas"]["Priority"];
        };
        /** @description A host of a rollout. */
        RolloutHost: {
            /** @description Which. */
            host: components["schemas"]["HostId"];
            /** @description A few words. */
            what: string;
        };
        /**
         * @description How far a rollout is.
         *
         *     ```text
         *     Canary --all canaries healthy--> Rolling --all hosts run it--> Done
         *       |                                 +-- a host does not come back in time, or an operator stops it --> Stopped
         *       +-- deadline, or an operator stops it --> Back --no canary runs it any more--> RolledBack
         *     ```
         * @enum {string}
         */
        RolloutPhase: "canary" | "rolling" | "done" | "stopped" | "back" | "rolled_back";
        /** @description A rollout. */
        RolloutView: {
            /**
             * Format: int64
             * @description When it began, Unix milliseconds.
             */
            began_ms: number;
            /** @description Hosts that try it first, each with why it was chosen. */
            canaries: components["schemas"]["RolloutHost"][];
            /**
             * Format: int64
             * @description Until when its canaries, or the hosts whose turn it is, must be healthy; absent when nothing is waited for.
             */
            deadline_ms?: number | null;
            /** @description From which. */
            from: components["schemas"]["ReleaseId"];
            /** @description One sentence: what is waited for, or how it ended. */
            note: string;
            /** @description How far it is. */
            phase: components["schemas"]["RolloutPhase"];
            /** @description To which release. */
            to: components["schemas"]["ReleaseId"];
            /** @description Hosts whose turn it is, each with what it is at. */
            turns: components["schemas"]["RolloutHost"][];
        };
        /** @description A text that must not be logged: a CHAP secret, a password. */
        Secret: string;
        /** @description A session. The page has it as a cookie as well. */
        Session: {
            /**
             * Format: int64
             * @description Unix milliseconds.
             */
            expires_ms: number;
            /** @description For `Authorization: Bearer`. */
            token: string;
        };
        /** @description What a machine's management controller is, and how to log in to it. */
        SetBmc: {
            /**
             * @description Name or IP address, with `:PORT` (`[…]:PORT` for IPv6) where it is not the protocol's own. When absent: for IPMI and Redfish that
             *     which the machine's inventory told, for wake the broadcast address of the machine's subnet.
             */
            address?: string | null;
            /** @description Protocol. */
            kind: components["schemas"]["BmcKind"];
            password?: components["schemas"]["Secret"] | null;
            /** @description Redfish only: which of the systems behind this address it is, by its Id; needed only where there are several. */
            system?: string | null;
            /**
             * @description Redfish only: which certificate to trust. `first` pins that which is shown next, `any` trusts whatever is shown, and 64 hexadecimal
             *     digits are the sha256 of the one. When absent: as it was for the same kind and address, otherwise `first`.
             */
            trust?: string | null;
            /** @description Account; empty for wake. */
            user?: string;
        };
        /** @description Puts a host into a pool. */
        SetPool: {
            /** @description Which. */
            pool: components["schemas"]["PoolId"];
        };
        /** @description First use: the set-up code and a password of the operator's choice. */
        Setup: {
            /** @description The one-time code that the server printed. */
            code: string;
            /** @description 10 to 200 characters. */
            password: string;
        };
        /**
         * @description Steps within an order.
         * @enum {string}
         */
        Stage: "preparing" | "listening" | "copying" | "stopped" | "received" | "working";
        /** @description Brings another release to a pool: first to a few hosts, then to all. */
        StartRollout: {
            /**
             * Format: int32
             * @description Hosts that are emptied and started anew at a time, 1 to 100.
             */
            at_once?: number;
            /**
             * Format: int32
             * @description How many hosts try it first, 0 to 1000; with 0 the pool takes it at once.
             */
            canary?: number;
            /**
             * Format: int64
             * @description The canaries must have come up within so many seconds, 30 to 86400; afterwards a host whose turn it is as well.
             */
            deadline_s?: number;
            /**
             * Format: int64
             * @description And have been healthy for so many seconds, 0 to 86400.
             */
            healthy_s?: number;
            /** @description Whether hosts are emptied and started anew by the server; else they change when somebody reboots them. */
            reboot?: boolean;
            /** @description Which release. */
            to: components["schemas"]["ReleaseId"];
        };
        /** @description A VM that stays. */
        Stay: {
            /** @description The VM. */
            vm: components["schemas"]["VmId"];
            /** @description Why, one sentence. */
            why: string;
        };
        /**
         * @description What an event is about.
         * @enum {string}
         */
        Topic: "dhcp" | "boot" | "host" | "vm" | "move" | "storage" | "server" | "operator";
        /** @description A virtual network interface. */
        Vif: {
            /** @description The bridge of the host it is put on. */
            bridge: string;
            /** @description Its address, unique in the rack. */
            mac: components["schemas"]["Mac"];
        };
        /** @description A virtual machine. The operator's name for it; also its Xen domain name. */
        VmId: string;
        /** @description A VM's load. */
        VmLoad: {
            /**
             * Format: double
             * @description Cores.
             */
            cpu_cores: number;
            /**
             * Format: double
             * @description Bytes a second read.
             */
            disk_read_bytes_s: number;
            /**
             * Format: double
             * @description Bytes a second written.
             */
            disk_write_bytes_s: number;
            /**
             * Format: double
             * @description Bytes a second received.
             */
            net_rx_bytes_s: number;
            /**
             * Format: double
             * @description Bytes a second sent.
             */
            net_tx_bytes_s: number;
        };
        /**
         * @description What a VM's record says.
         * @enum {string}
         */
        VmPhase: "creating" | "stopped" | "starting" | "running" | "paused" | "moving" | "stopping" | "deleting" | "unknown" | "failed";
        /** @description What a VM is to be. Changes only while it is stopped. */
        VmSpec: {
            /** @description What it boots. */
            boot: components["schemas"]["Boot"];
            /** @description Its disks in order: xvda, xvdb, … */
            disks: components["schemas"]["DiskId"][];
            /**
             * Format: int64
             * @description Memory, MiB, 16 or more.
             */
            memory_mib: number;
            /** @description Its name, also its Xen domain name. */
            name: components["schemas"]["VmId"];
            /**
             * Format: int32
             * @description Virtual processors, 1 to 64.
             */
            vcpus: number;
            /** @description Its network interfaces in order. */
            vifs: components["schemas"]["Vif"][];
        };
        /** @description One VM. */
        VmView: {
            domain?: components["schemas"]["DomainState"] | null;
            /** @description Changes of owner so far. */
            epoch: components["schemas"]["Epoch"];
            /** @description Load by the newest report; zero when it does not run. */
            load: components["schemas"]["VmLoad"];
            move?: components["schemas"]["MoveId"] | null;
            /** @description A sentence on what is wrong; empty when all is well. */
            note: string;
            owner?: components["schemas"]["HostId"] | null;
            /** @description What its record says. */
            phase: components["schemas"]["VmPhase"];
            /** @description In which order it is started again after its host has failed. */
            restart?: components["schemas"]["Restart"];
            /** @description It is to run: while it does not, it is started as soon as it can be, and the note says what it waits for. */
            run?: boolean;
            /**
             * Format: int64
             * @description Since when it is in this phase, Unix milliseconds.
             */
            since_ms: number;
            /** @description What it is to be. */
            spec: components["schemas"]["VmSpec"];
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type About = components['schemas']['About'];
export type Accepted = components['schemas']['Accepted'];
export type ApiError = components['schemas']['ApiError'];
export type BackupFile = components['schemas']['BackupFile'];
export type BackupView = components['schemas']['BackupView'];
export type Balance = components['schemas']['Balance'];
export type Bmc = components['schemas']['Bmc'];
export type BmcKind = components['schemas']['BmcKind'];
export type Boot = components['schemas']['Boot'];
export type BootStep = components['schemas']['BootStep'];
export type BootStepKind = components['schemas']['BootStepKind'];
export type Collected = components['schemas']['Collected'];
export type CollectReleases = components['schemas']['CollectReleases'];
export type ConsoleText = components['schemas']['ConsoleText'];
export type Cpu = components['schemas']['Cpu'];
export type CreateDisk = components['schemas']['CreateDisk'];
export type CreatePool = components['schemas']['CreatePool'];
export type CreateVm = components['schemas']['CreateVm'];
export type DescribeHost = components['schemas']['DescribeHost'];
export type DiskId = components['schemas']['DiskId'];
export type DiskView = components['schemas']['DiskView'];
export type Document = components['schemas']['Document'];
export type DomainState = components['schemas']['DomainState'];
export type Epoch = components['schemas']['Epoch'];
export type FenceStep = components['schemas']['FenceStep'];
export type FileProgress = components['schemas']['FileProgress'];
export type Firmware = components['schemas']['Firmware'];
export type GrowDisk = components['schemas']['GrowDisk'];
export type Hardware = components['schemas']['Hardware'];
export type HaView = components['schemas']['HaView'];
export type HostId = components['schemas']['HostId'];
export type HostList = components['schemas']['HostList'];
export type HostState = components['schemas']['HostState'];
export type HostStats = components['schemas']['HostStats'];
export type HostView = components['schemas']['HostView'];
export type Inventory = components['schemas']['Inventory'];
export type Level = components['schemas']['Level'];
export type LocalDisk = components['schemas']['LocalDisk'];
export type LogEvent = components['schemas']['LogEvent'];
export type Login = components['schemas']['Login'];
export type Mac = components['schemas']['Mac'];
export type Manifest = components['schemas']['Manifest'];
export type MemoryModule = components['schemas']['MemoryModule'];
export type MigrateVm = components['schemas']['MigrateVm'];
export type MissingFile = components['schemas']['MissingFile'];
export type MissingFiles = components['schemas']['MissingFiles'];
export type MoveId = components['schemas']['MoveId'];
export type MovePhase = components['schemas']['MovePhase'];
export type MoveView = components['schemas']['MoveView'];
export type Nic = components['schemas']['Nic'];
export type OnCrash = components['schemas']['OnCrash'];
export type OrderPower = components['schemas']['OrderPower'];
export type PlannedMove = components['schemas']['PlannedMove'];
export type PlanView = components['schemas']['PlanView'];
export type PoolId = components['schemas']['PoolId'];
export type PoolView = components['schemas']['PoolView'];
export type PowerOrderView = components['schemas']['PowerOrderView'];
export type PowerStage = components['schemas']['PowerStage'];
export type PowerState = components['schemas']['PowerState'];
export type PowerVerb = components['schemas']['PowerVerb'];
export type PowerView = components['schemas']['PowerView'];
export type Priority = components['schemas']['Priority'];
export type RackView = components['schemas']['RackView'];
export type Refusal = components['schemas']['Refusal'];
export type RegisterHost = components['schemas']['RegisterHost'];
export type Rejected = components['schemas']['Rejected'];
export type ReleaseFile = components['schemas']['ReleaseFile'];
export type ReleaseId = components['schemas']['ReleaseId'];
export type ReleaseKind = components['schemas']['ReleaseKind'];
export type ReleaseView = components['schemas']['ReleaseView'];
export type Restart = components['schemas']['Restart'];
export type RolloutHost = components['schemas']['RolloutHost'];
export type RolloutPhase = components['schemas']['RolloutPhase'];
export type RolloutView = components['schemas']['RolloutView'];
export type Secret = components['schemas']['Secret'];
export type Session = components['schemas']['Session'];
export type SetBmc = components['schemas']['SetBmc'];
export type SetPool = components['schemas']['SetPool'];
export type Setup = components['schemas']['Setup'];
export type Stage = components['schemas']['Stage'];
export type StartRollout = components['schemas']['StartRollout'];
export type Stay = components['schemas']['Stay'];
export type Topic = components['schemas']['Topic'];
export type Vif = components['schemas']['Vif'];
export type VmId = components['schemas']['VmId'];
export type VmLoad = components['schemas']['VmLoad'];
export type VmPhase = components['schemas']['VmPhase'];
export type VmSpec = components['schemas']['VmSpec'];
export type VmView = components['schemas']['VmView'];
export type $defs = Record<string, never>;
export interface operations {
    getAbout: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["About"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postBackups: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BackupFile"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postBalance: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Balance"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanView"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postDisks: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateDisk"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deleteDisksOne: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postDisksGrow: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["GrowDisk"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getEvents: {
        parameters: {
            query?: {
                /** @description Events above this number; 0 when absent. */
                after?: number;
                /** @description At most so many, 1 to 1000; 100 when absent. */
                limit?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["LogEvent"][];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHosts: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RegisterHost"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deleteHostsOne: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsAccept: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsBmc: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetBmc"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deleteHostsBmc: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    "postHostsConfirm-off": {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsDescribe: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DescribeHost"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsDrain: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getHostsLog: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ConsoleText"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsPool: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetPool"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getHostsPower: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PowerView"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsPower: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["OrderPower"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsUndrain: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postHostsList: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["HostList"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postLogin: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Login"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postLogout: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getOpenapi: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Document"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postPools: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreatePool"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deletePoolsOne: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postPoolsRollout: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StartRollout"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postPoolsStop: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getRack: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RackView"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postReleases: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Manifest"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deleteReleasesOne: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postReleasesCollect: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CollectReleases"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Collected"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postReleasesFilesOne: {
        parameters: {
            query?: {
                /** @description The byte at which this part begins; 0 when absent. */
                offset?: number;
            };
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FileProgress"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postReleasesMissing: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Manifest"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["MissingFiles"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postSetup: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Setup"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getStream: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": components["schemas"]["RackView"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postThaw: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVms: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateVm"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    deleteVmsOne: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    getVmsConsole: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ConsoleText"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsDestroy: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsHa: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Restart"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsMigrate: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["MigrateVm"];
            };
        };
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsPause: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsResume: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsShutdown: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
    postVmsStart: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Its id or name. */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done or begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description Refused: 400 the request, 401 the session, 404 what it names, 409 the rack's state, 429 too many attempts, 502 a host, 503 the server. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiError"];
                };
            };
        };
    };
}
